"""Errors as HTTP responses with one schema. Their messages reveal no internals of the service."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from amer.service.batching import Unavailable
from amer.service.schemas import OpenAIError, OpenAIProblem, Problem

OPENAI = "/v1/"  # paths whose clients expect the error format of OpenAI
CLIENT_GONE = 499  # nginx's code for a closed connection; only the metrics use it
RETRY_AFTER = {"Retry-After": "1"}
MEANINGS = {
    401: "the header X-API-Key is missing or wrong",
    408: "the body has not arrived in time",
    413: "the body is too large",
    415: "the body is not declared as application/json",
    422: "the request does not fit this schema, or its filter does not fit the documents",
    500: "the service failed; its log says why",
    503: "too many questions are waiting, the index cannot be reached, or the search has stopped: try again later",
    504: "the answer took too long",
}
logger = logging.getLogger(__name__)


def documented(*statuses: int, model: type[BaseModel] = Problem) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of errors."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": model, "description": MEANINGS[status]} for status in statuses
    }
    if 503 in answers:
        seconds = {"description": "seconds", "schema": {"type": "string"}, "required": True}
        answers[503]["headers"] = {"Retry-After": seconds}
    return answers


def handle_problems(app: FastAPI) -> None:
    """Answer every error with a `Problem`."""

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> Response:
        return _answer(request, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, error: Unavailable) -> Response:
        return _answer(request, 503, f"{error}: try again later", RETRY_AFTER)

    @app.exception_handler(OSError)
    async def index_away(request: Request, error: OSError) -> Response:
        logger.error("the index cannot be reached", exc_info=error)
        return _answer(request, 503, "the index cannot be reached: try again later", RETRY_AFTER)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)  # the server logs it
    async def failed(request: Request, error: Exception) -> Response:
        # The server also closes the connection. Clients must know this, or their next request on it is lost.
        return _answer(request, 500, "the service failed; its log says why", {"Connection": "close"})


def unfit(error: ValidationError) -> HTTPException:
    """Return a 422 error that says where a request does not fit the schema."""
    first = error.errors(include_url=False, include_input=False, include_context=False)
    where = [".".join(map(str, problem["loc"])) or "the body" for problem in first]
    words = [f"{place}: {problem['msg']}" for place, problem in zip(where, first, strict=True)]
    more = f"; and {len(words) - 5} more" if len(words) > 5 else ""
    return HTTPException(422, "; ".join(words[:5]) + more)


def _answer(request: Request, status: int, detail: str, headers: Any = None) -> Response:
    problem = Problem(detail=detail)
    if request.url.path.startswith(OPENAI):
        problem = OpenAIProblem(detail=detail, error=OpenAIError(message=detail, code=status))
    return Response(problem.model_dump_json(), status_code=status, headers=headers, media_type="application/json")
