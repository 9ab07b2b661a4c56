"""Read and check requests before the search."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ValidationError

from amer.corpus.filters import Filter
from amer.search import Searcher
from amer.service.clients import read_body
from amer.service.keys import key_check
from amer.service.problems import unfit
from amer.service.settings import Settings

JSON = "application/json"
STATUSES = (408, 413, 415, 422, 500, 503, 504)  # error statuses of routes that answer questions
Asked = TypeVar("Asked", bound=BaseModel)


async def read_request(request: Request, model: type[Asked], settings: Settings) -> Asked:
    """Read the body of a request, within its limits, and parse it by a schema. Call it after the check of the key.

    Raises:
        HTTPException: The body is too large or too slow, is not JSON, or does not fit the schema.
        ClientDisconnect: The client has disconnected.
    """
    raw = await read_body(request, settings.max_body_bytes, settings.timeout_seconds)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise HTTPException(415, f"send the request as JSON, with the header Content-Type: {JSON}")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise unfit(error) from None


def check_filter(filter: str | None, searcher: Searcher) -> None:
    """Check a filter before the request enters the queue. So a later ValueError is never the client's fault.

    Raises:
        HTTPException: The filter does not fit the documents.
    """
    if filter is None:
        return
    try:
        Filter(filter, searcher.store.metadata)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a body that FastAPI does not read itself."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": model.model_json_schema()}}}}


def key_needed(api_key: str | None) -> list[Any]:
    """Return the dependencies of routes that require the API key, if there is one."""
    return [] if api_key is None else [Depends(key_check(api_key))]


def statuses(api_key: str | None) -> tuple[int, ...]:
    """Return the error statuses of routes that answer questions."""
    return STATUSES if api_key is None else (401, *STATUSES)
