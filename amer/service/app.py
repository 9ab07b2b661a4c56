"""The application: `/search`, `/health` and `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from amer import __version__
from amer.corpus.filters import Filter
from amer.hub import public_name
from amer.search import Searcher
from amer.service.batching import Batcher, Found, Options
from amer.service.cache import AnswerCache
from amer.service.clients import awaited_by_client, read_body
from amer.service.keys import key_check
from amer.service.metrics import MeasuredRequests, Metrics
from amer.service.problems import documented, handle_problems, unfit
from amer.service.schemas import (
    Encoder,
    Health,
    SearchAnswer,
    SearchRequest,
    question_answer,
    search_answer,
    search_request,
)
from amer.service.settings import Settings

JSON = "application/json"
SCHEMA = "/openapi.json"


def create_app(searcher: Searcher, settings: Settings | None = None, api_key: str | None = None) -> FastAPI:
    """An ASGI application that searches for its clients; run it in one process (`serve` does).

    Args:
        searcher: what is served; only one thread ever uses it.
        settings: limits.
        api_key: what clients of `/search`, `/openapi.json` and the pages of it must send as `X-API-Key`; nothing by
            default.

    Returns:
        the application; `app.state.batcher` says whether it is at work.

    Raises:
        ValueError: an empty API key.
    """
    settings = settings or Settings()

    def search(questions: list[str], options: Options) -> Found:
        # The JSON is made here, in the batcher's thread: an answer may have megabytes, and the event loop must go on.
        return [question_answer(hits) for hits in searcher.search(questions, **options._asdict())]

    metrics = Metrics(lambda: batcher.waiting)
    cache = AnswerCache(settings.cache_size, metrics.repeated.inc)
    batcher = Batcher(
        search, settings.max_batch_questions, settings.max_waiting_questions, metrics.batches.observe, cache
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(
        title="AMER",
        description="Retrieval with several query vectors a question.",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # these three are behind the key, as `_documentation_router` has them
        docs_url=None,
        redoc_url=None,
    )
    app.state.batcher = batcher
    app.add_middleware(MeasuredRequests, metrics=metrics)
    handle_problems(app)
    app.include_router(_search_router(searcher, batcher, settings, api_key))
    app.include_router(_state_router(searcher, batcher, metrics))
    app.include_router(_documentation_router(app, api_key))
    return app


def _search_router(searcher: Searcher, batcher: Batcher, settings: Settings, api_key: str | None) -> APIRouter:
    router, request_model = APIRouter(), search_request(settings)
    body = {"required": True, "content": {JSON: {"schema": request_model.model_json_schema()}}}
    key_needed = _key_needed(api_key)
    statuses = (*([401] if key_needed else []), 408, 413, 415, 422, 500, 503, 504)

    @router.post(
        "/search",
        response_model=SearchAnswer,
        responses=documented(*statuses),
        openapi_extra={"requestBody": body},
        dependencies=key_needed,
    )
    async def search(request: Request) -> Response:
        """The documents of each question, best first."""
        # The body is read here, not by FastAPI: after the check of the key, and never beyond its limit.
        raw = await read_body(request, settings.max_body_bytes, settings.timeout_seconds)
        asked = _checked(request, raw, request_model, settings.max_documents)
        if asked.filter is not None:
            try:  # here, before the queue, so that every ValueError from there is the service's own
                Filter(asked.filter, searcher.store.metadata)
            except ValueError as error:
                raise HTTPException(422, str(error)) from None
        options = Options(asked.k, asked.num_query_vectors, asked.fusion, asked.filter)
        work = batcher.find(asked.questions, options)
        found = await awaited_by_client(request, work, settings.timeout_seconds)
        return Response(search_answer(found), media_type=JSON)

    return router


def _state_router(searcher: Searcher, batcher: Batcher, metrics: Metrics) -> APIRouter:
    router = APIRouter()
    config, encoder = searcher.model.config, searcher.store.encoder
    served = Health(
        status="ok",
        version=__version__,
        model=public_name(config.name_or_path),
        num_query_vectors=config.num_query_vectors,
        documents=len(searcher.store),
        encoder=Encoder(name=public_name(encoder["name"]), revision=encoder["revision"]),
    )
    text: dict[int | str, dict[str, Any]] = {
        200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @router.get("/health", responses=documented(500, 503))
    async def health() -> Health:
        """Whether the service is alive, and what it serves; needs no key."""
        batcher.check()
        return served

    @router.get("/metrics", response_class=Response, responses={**text, **documented(500)})
    async def figures() -> Response:
        """Requests, latencies, batches and queue, for Prometheus; needs no key."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _documentation_router(app: FastAPI, api_key: str | None) -> APIRouter:
    """What FastAPI shows of the application, for those with the key where there is one."""
    router = APIRouter(dependencies=_key_needed(api_key), include_in_schema=False)
    title = app.title

    @router.get(SCHEMA)
    async def schema() -> Response:
        return JSONResponse(app.openapi())

    @router.get("/docs")
    async def docs() -> Response:
        return get_swagger_ui_html(openapi_url=SCHEMA, title=title)

    @router.get("/redoc")
    async def redoc() -> Response:
        return get_redoc_html(openapi_url=SCHEMA, title=title)

    return router


def _key_needed(api_key: str | None) -> list[Any]:
    return [] if api_key is None else [Depends(key_check(api_key))]


def _checked(request: Request, raw: bytes, request_model: type[SearchRequest], max_documents: int) -> SearchRequest:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise HTTPException(415, f"send the request as JSON, with the header Content-Type: {JSON}")
    try:
        asked = request_model.model_validate_json(raw)
    except ValidationError as error:
        raise unfit(error) from None
    documents = len(asked.questions) * asked.k
    if documents > max_documents:
        raise HTTPException(
            422, f"questions x k is {documents}, at most {max_documents}: ask fewer questions at a time or lower k"
        )
    return asked
