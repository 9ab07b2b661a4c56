"""`/v1/embeddings`: query vectors of texts, compatible with clients of OpenAI's embeddings API."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from amer.search import Searcher
from amer.service.asking import JSON, body_of, key_needed, read_request, statuses
from amer.service.batching import Batcher
from amer.service.clients import awaited_by_client
from amer.service.problems import documented
from amer.service.schemas import OpenAIProblem, question_type, served_name
from amer.service.settings import Settings
from amer.service.work import Embed, Embedded


class EmbeddingsRequest(BaseModel):
    """Texts and the number of query vectors per text; `embeddings_request` adds the limits of a service."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: little-endian float32 values, as OpenAI's clients read them"
    )
    dimensions: int | None = Field(None, description="dimension of a vector; only the store's dimension is allowed")
    user: str | None = Field(None, description="not used")
    n_vectors: int | Literal["auto"] = Field(1)


class Embedding(BaseModel):
    """One query vector."""

    object: Literal["embedding"]
    index: int = Field(ge=0, description="position of the text in the request, from 0")
    vector: int = Field(ge=0, description="number of the query vector of this text, from 0")
    embedding: list[float] | str = Field(description="unit vector, as numbers or base64")


class Usage(BaseModel):
    """Number of tokens in the texts, without the model's prompt."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """The query vectors of all texts, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


def embeddings_router(searcher: Searcher, batcher: Batcher, settings: Settings, api_key: str | None) -> APIRouter:
    """Make the route. It requires the API key if there is one."""
    router = APIRouter()
    request_model = embeddings_request(settings, searcher)

    @router.post(
        "/v1/embeddings",
        response_model=EmbeddingsAnswer,
        responses=documented(*statuses(api_key), model=OpenAIProblem),
        openapi_extra=body_of(request_model),
        dependencies=key_needed(api_key),
    )
    async def embeddings(request: Request) -> Response:
        """Return query vectors of questions, to search documents embedded by the model's document encoder."""
        asked = await read_request(request, request_model, settings)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        most = searcher.model.config.max_query_vectors if asked.n_vectors == "auto" else asked.n_vectors
        vectors = len(texts) * most
        if vectors > settings.max_vectors:
            raise HTTPException(
                422, f"inputs x n_vectors is {vectors}, at most {settings.max_vectors}: embed fewer texts per request"
            )
        work = batcher.find(texts, Embed(asked.n_vectors, asked.encoding_format))
        found = await awaited_by_client(request, work, settings.timeout_seconds)
        return Response(embeddings_answer(found, asked.model), media_type=JSON)

    return router


def embeddings_request(limits: Settings, searcher: Searcher) -> type[EmbeddingsRequest]:
    """Make the schema of the request, with the limits of a service and the abilities of its model."""
    question, name, dim = question_type(limits), served_name(searcher), searcher.store.dim
    number = Annotated[int, Field(ge=1, le=limits.max_num_query_vectors)]
    chooses = searcher.model.config.chooses_number
    auto = '; "auto": the model chooses the number' if chooses else ""
    of_type: Any = list  # types made at run time
    literal: Any = Literal
    several: Any = Annotated[of_type[question], Field(min_length=1, max_length=limits.max_questions)]
    fields: dict[str, Any] = {
        "input": (question | several, ...),
        "model": (literal[name], ...),
        "dimensions": (
            literal[dim] | None,
            Field(None, description="dimension of a vector; only the store's dimension is allowed"),
        ),
        "n_vectors": (
            number | Literal["auto"] if chooses else number,
            Field(1, description=f"query vectors per text; at most {limits.max_vectors} for all texts{auto}"),
        ),
    }
    doc = "Texts, and the number of query vectors per text."
    return create_model("EmbeddingsRequest", __base__=EmbeddingsRequest, __doc__=doc, **fields)


def embeddings_answer(found: list[Embedded], model: str) -> bytes:
    """Return the JSON of an `EmbeddingsAnswer`."""
    data = [
        b'{"object":"embedding","index":%d,"vector":%d,"embedding":%b}' % (index, number, vector)
        for index, text in enumerate(found)
        for number, vector in enumerate(text.vectors)
    ]
    tokens = sum(text.tokens for text in found)
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens).model_dump_json().encode()
    name = json.dumps(model).encode()
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (b",".join(data), name, usage)
