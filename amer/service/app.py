"""The application: the page, `/search`, `/explore`, `/v1/embeddings`, `/health` and `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from amer import __version__
from amer.hub import public_name
from amer.search import Searcher
from amer.service.asking import JSON, body_of, check_filter, key_needed, read_request, statuses
from amer.service.batching import Batcher, Found
from amer.service.cache import AnswerCache
from amer.service.clients import awaited_by_client
from amer.service.embeddings import embeddings_router
from amer.service.exploring import exploring_router
from amer.service.metrics import MeasuredRequests, Metrics
from amer.service.pages import page_router
from amer.service.problems import documented, handle_problems
from amer.service.schemas import Encoder, Health, SearchAnswer, search_answer, search_request, served_name
from amer.service.settings import Settings
from amer.service.work import Search, Work

SCHEMA = "/openapi.json"


def create_app(
    searcher: Searcher,
    settings: Settings | None = None,
    api_key: str | None = None,
    examples: Sequence[str] = (),
) -> FastAPI:
    """Make the ASGI application of a search service. Run it in one process, as `serve` does.

    Args:
        searcher: The searcher to serve. Only one thread uses it.
        settings: Limits of the service.
        api_key: Key that clients must send as `X-API-Key` or as `Authorization: Bearer`. Default: no key. `/health`,
            `/metrics` and the files of the page never need it; the page asks its user for the key.
        examples: Example questions on the page.

    Returns:
        The application. `app.state.batcher.searching` says whether a search is running.

    Raises:
        ValueError: The API key is empty.
    """
    settings = _within_model(settings or Settings(), searcher)

    def answers(questions: list[str], work: Work) -> Found:
        return work.answers(searcher, questions)

    metrics = Metrics(lambda: batcher.waiting)
    cache = AnswerCache(settings.cache_size, metrics.repeated.inc)
    batcher = Batcher(
        answers, settings.max_batch_questions, settings.max_waiting_questions, metrics.batches.observe, cache
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(
        title="AMER",
        description="Retrieval with several query vectors per question.",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # these three need the key, see `_documentation_router`
        docs_url=None,
        redoc_url=None,
    )
    app.state.batcher = batcher
    app.add_middleware(MeasuredRequests, metrics=metrics)
    handle_problems(app)
    app.include_router(page_router())
    app.include_router(_search_router(searcher, batcher, settings, api_key))
    app.include_router(exploring_router(searcher, batcher, settings, api_key, examples))
    app.include_router(embeddings_router(searcher, batcher, settings, api_key))
    app.include_router(_state_router(searcher, batcher, metrics))
    app.include_router(_documentation_router(app, api_key))
    return app


def _search_router(searcher: Searcher, batcher: Batcher, settings: Settings, api_key: str | None) -> APIRouter:
    router, request_model = APIRouter(), search_request(settings)

    @router.post(
        "/search",
        response_model=SearchAnswer,
        responses=documented(*statuses(api_key)),
        openapi_extra=body_of(request_model),
        dependencies=key_needed(api_key),
    )
    async def search(request: Request) -> Response:
        """Find the documents of each question, best first."""
        asked = await read_request(request, request_model, settings)
        documents = len(asked.questions) * asked.k
        if documents > settings.max_documents:
            raise HTTPException(
                422,
                f"questions x k is {documents}, at most {settings.max_documents}: send fewer questions per request or "
                "lower k",
            )
        check_filter(asked.filter, searcher)
        options = Search(asked.k, asked.num_query_vectors, asked.fusion, asked.filter)
        work = batcher.find(asked.questions, options)
        found = await awaited_by_client(request, work, settings.timeout_seconds)
        return Response(search_answer(found), media_type=JSON)

    return router


def _within_model(settings: Settings, searcher: Searcher) -> Settings:
    """Limit the number of query vectors to the number of learned query tokens, if the model has them."""
    config = searcher.model.config
    if getattr(config, "emission", None) != "one_pass":
        return settings
    return replace(settings, max_num_query_vectors=min(settings.max_num_query_vectors, config.max_query_vectors))


def _state_router(searcher: Searcher, batcher: Batcher, metrics: Metrics) -> APIRouter:
    router = APIRouter()
    config, encoder = searcher.model.config, searcher.store.encoder
    served = Health(
        status="ok",
        version=__version__,
        model=served_name(searcher),
        num_query_vectors=None if config.chooses_number else config.num_query_vectors,
        documents=len(searcher.store),
        encoder=Encoder(name=public_name(encoder["name"]), revision=encoder["revision"]),
    )
    text: dict[int | str, dict[str, Any]] = {
        200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @router.get("/health", responses=documented(500, 503))
    async def health() -> Health:
        """Say that the service is alive, and which model and documents it serves. Needs no key."""
        batcher.check()
        return served

    @router.get("/metrics", response_class=Response, responses={**text, **documented(500)})
    async def figures() -> Response:
        """Return requests, latencies, batches and queue for Prometheus. Needs no key."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _documentation_router(app: FastAPI, api_key: str | None) -> APIRouter:
    """Make the routes of the API documentation. They require the API key if there is one."""
    router = APIRouter(dependencies=key_needed(api_key), include_in_schema=False)
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
