"""Requests read and checked before anything is searched."""

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
STATUSES = (408, 413, 415, 422, 500, 503, 504)  # what a question may be answered with that is no answer
Asked = TypeVar("Asked", bound=BaseModel)


async def read_request(request: Request, model: type[Asked], settings: Settings) -> Asked:
    """The body of a request, as a model has it; read after the check of the key, and never beyond its limit.

    Raises:
        HTTPException: the body is too large or too slow, no JSON, or does not fit.
        ClientDisconnect: the client has gone.
    """
    raw = await read_body(request, settings.max_body_bytes, settings.timeout_seconds)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise HTTPException(415, f"send the request as JSON, with the header Content-Type: {JSON}")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise unfit(error) from None


def check_filter(filter: str | None, searcher: Searcher) -> None:
    """Refuse a filter before the queue, so that every ValueError from there is the service's own.

    Raises:
        HTTPException: it does not fit the documents.
    """
    if filter is None:
        return
    try:
        Filter(filter, searcher.store.metadata)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body that FastAPI does not read itself."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": model.model_json_schema()}}}}


def key_needed(api_key: str | None) -> list[Any]:
    """The dependencies of routes that need the key, where there is one."""
    return [] if api_key is None else [Depends(key_check(api_key))]


def statuses(api_key: str | None) -> tuple[int, ...]:
    """The errors of routes that answer questions."""
    return STATUSES if api_key is None else (401, *STATUSES)
