"""What goes in and out as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from amer.search import Hit
from amer.search.fusion import FusionName
from amer.service.settings import Settings


class SearchRequest(BaseModel):
    """Questions and how to search them; `search_request` adds the limits of a service."""

    model_config = ConfigDict(extra="forbid", strict=True)

    questions: list[str]
    k: int
    num_query_vectors: int | None
    fusion: FusionName | None
    filter: str | None


class FoundDocument(BaseModel):
    """A document that was found."""

    id: str
    score: float = Field(allow_inf_nan=False, description="what the documents are ranked by, see fusion")
    title: str
    text: str
    metadata: dict[str, str | int | float | bool]
    found_by: int = Field(ge=0, description="the query vector that found it first, from 0")
    found_at: int = Field(ge=0, description="its rank in that query vector's list, from 0")


class QuestionAnswer(BaseModel):
    """The documents of a question, best first."""

    hits: list[FoundDocument]


class SearchAnswer(BaseModel):
    """One answer a question, in their order."""

    answers: list[QuestionAnswer]


class Encoder(BaseModel):
    """The document encoder."""

    name: str
    revision: str | None


class Health(BaseModel):
    """The service is alive, and this is what it serves."""

    status: Literal["ok"]
    version: str = Field(description="of AMER")
    model: str
    num_query_vectors: int = Field(description="m where a request names none")
    documents: int
    encoder: Encoder


class Problem(BaseModel):
    """Every answer that is an error."""

    detail: str = Field(description="what is wrong and what to do, in words")


def search_request(limits: Settings) -> type[SearchRequest]:
    """The request's model with the limits of a service, which OpenAPI then shows."""
    question = Annotated[
        str,
        Field(min_length=1, max_length=limits.max_question_characters, json_schema_extra={"pattern": r"\S"}),
        AfterValidator(_not_blank),
    ]
    return create_model(
        "SearchRequest",
        __base__=SearchRequest,
        __doc__="Questions and how to search them.",
        questions=(list[question], Field(min_length=1, max_length=limits.max_questions)),
        k=(
            int,
            Field(
                10,
                ge=1,
                le=limits.max_k,
                description=f"documents a question; of all questions at most {limits.max_documents}",
            ),
        ),
        num_query_vectors=(
            Annotated[int, Field(ge=1, le=limits.max_num_query_vectors)] | None,
            Field(None, description="m, query vectors a question; the model's own when null"),
        ),
        fusion=(
            FusionName | None,
            Field(None, description="how m lists become one; the one the model was trained for when null"),
        ),
        filter=(
            Annotated[str, Field(min_length=1, max_length=limits.max_filter_characters)] | None,
            Field(None, description='only documents whose metadata fulfil it, such as year >= 1990 and lang == "en"'),
        ),
    )


def question_answer(hits: list[Hit]) -> bytes:
    """What the searcher found for a question: the JSON of a `QuestionAnswer`."""
    found = [FoundDocument(**{**hit._asdict(), "metadata": dict(hit.metadata)}) for hit in hits]
    return QuestionAnswer(hits=found).model_dump_json().encode()


def search_answer(answers: list[bytes]) -> bytes:
    """The JSON of a `SearchAnswer` of several `question_answer`."""
    return b'{"answers":[' + b",".join(answers) + b"]}"


def _not_blank(question: str) -> str:
    if not question.strip():
        raise ValueError("a question needs more than white space")
    return question
