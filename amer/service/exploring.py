"""`/explore`: one question with the steps of its search, for the page and for other user interfaces."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from amer.hub import public_name
from amer.search import Searcher
from amer.service.asking import JSON, body_of, check_filter, key_needed, read_request, statuses
from amer.service.batching import Batcher
from amer.service.clients import awaited_by_client
from amer.service.problems import documented
from amer.service.schemas import Explorable, ExploreAnswer, explore_request, most_explored, served_name
from amer.service.settings import Settings
from amer.service.work import Explore

MOST_QUERY_VECTORS = 8  # that the page offers; nobody reads more lists


def exploring_router(
    searcher: Searcher, batcher: Batcher, settings: Settings, api_key: str | None, examples: Sequence[str]
) -> APIRouter:
    """Make the routes. They require the API key if there is one."""
    router, request_model = APIRouter(dependencies=key_needed(api_key)), explore_request(settings)
    described = _explorable(searcher, settings, examples)
    refused = documented(*([] if api_key is None else [401]), 500)

    @router.get("/explore/options", responses=refused)
    async def explorable() -> Explorable:
        """Return the options of `/explore`, with example questions."""
        return described

    @router.post(
        "/explore",
        response_model=ExploreAnswer,
        responses=documented(*statuses(api_key)),
        openapi_extra=body_of(request_model),
    )
    async def explore(request: Request) -> Response:
        """Search one question: its query vectors, the documents of each and of the encoder alone, and a map."""
        asked = await read_request(request, request_model, settings)
        check_filter(asked.filter, searcher)
        options = Explore(asked.k, asked.num_query_vectors, asked.fusion, asked.filter)
        work = batcher.find([asked.question], options)
        (found,) = await awaited_by_client(request, work, settings.timeout_seconds)
        return Response(found, media_type=JSON)

    return router


def _explorable(searcher: Searcher, settings: Settings, examples: Sequence[str]) -> Explorable:
    config = searcher.model.config
    most = max(MOST_QUERY_VECTORS, config.num_query_vectors)
    return Explorable(
        model=served_name(searcher),
        documents=len(searcher.store),
        encoder=public_name(searcher.store.encoder["name"]),
        num_query_vectors=None if config.chooses_number else config.num_query_vectors,
        most_query_vectors=min(most, settings.max_num_query_vectors),
        most_k=most_explored(settings),
        most_question_characters=settings.max_question_characters,
        fields={name: str(kind) for name, kind in searcher.store.metadata.items()},
        examples=list(examples),
    )
