"""JSON schemas of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from amer.hub import public_name
from amer.search import Hit, Searcher, VectorWords
from amer.search.exploring import Exploration
from amer.search.fusion import FusionName
from amer.search.showing import excerpt
from amer.service.settings import Settings

MOST_EXPLORED = 50  # documents per list of an exploration, which is for people to read
LONGEST_TEXT = 1_000  # characters of a document's text in an exploration
LONGEST_LABEL = 160  # characters of a document's text on the map


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
    score: float = Field(allow_inf_nan=False, description="score that ranks the documents, see fusion")
    title: str
    text: str
    metadata: dict[str, str | int | float | bool]
    found_by: int = Field(ge=0, description="the query vector that found it first, from 0")
    found_at: int = Field(ge=0, description="its rank in that query vector's list, from 0")


class QuestionAnswer(BaseModel):
    """The documents of a question, best first."""

    hits: list[FoundDocument]


class SearchAnswer(BaseModel):
    """One answer per question, in the order of the questions."""

    answers: list[QuestionAnswer]


class ExploreRequest(BaseModel):
    """One question and how to search it; `explore_request` adds the limits of a service."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str
    k: int
    num_query_vectors: int | None
    fusion: FusionName | None
    filter: str | None


class QueryVector(BaseModel):
    """The words that one query vector stands for, and the documents that it found."""

    part: str = Field(description="words of the question that it stands for; empty if the model cannot tell")
    spans: list[tuple[int, int]] = Field(description="these words, as [start, end) in characters of the question")
    hits: list[FoundDocument]


class EncoderAlone(BaseModel):
    """The documents that the document encoder finds with the whole question as one vector."""

    hits: list[FoundDocument]
    ranks: list[int | None] = Field(
        description="rank in this list of each document of the fused list; null if beyond `depth`"
    )
    depth: int = Field(ge=0, description="length of this list as searched; `hits` holds its beginning")


class Place(BaseModel):
    """A vector on a plane, from -1 to 1."""

    kind: Literal["query", "encoder", "hit", "neighbour"]
    vector: int | None = Field(
        description="number of the query vector, or of the one that ranks the document highest; null: the encoder"
    )
    x: float
    y: float
    id: str
    title: str
    text: str


class ExploreAnswer(BaseModel):
    """The steps of a question's search. Long texts are cut."""

    hits: list[FoundDocument] = Field(description="the fused list, best first")
    vectors: list[QueryVector]
    encoder: EncoderAlone | None = Field(description="null if the service has not opened the encoder")
    map: list[Place] = Field(description="the vectors of the question, then documents around them")


class Explorable(BaseModel):
    """The options of `/explore`: the answer of `/explore/options`."""

    model: str
    documents: int
    encoder: str
    num_query_vectors: int | None = Field(description="default m of a request; null if the model chooses it")
    most_query_vectors: int
    most_k: int
    most_question_characters: int
    fields: dict[str, str] = Field(description="metadata fields that filters can compare, with their types")
    examples: list[str] = Field(description="example questions")


class Encoder(BaseModel):
    """The document encoder."""

    name: str
    revision: str | None


class Health(BaseModel):
    """The service is alive, with this model and these documents."""

    status: Literal["ok"]
    version: str = Field(description="version of AMER")
    model: str
    num_query_vectors: int | None = Field(description="default m of a request; null if the model chooses it")
    documents: int
    encoder: Encoder


class Problem(BaseModel):
    """The body of every error response."""

    detail: str = Field(description="what is wrong and what to do")


class OpenAIError(BaseModel):
    """The same message in the place where OpenAI's clients read it."""

    message: str
    code: int


class OpenAIProblem(Problem):
    """An error of `/v1/embeddings`."""

    error: OpenAIError


def question_type(limits: Settings) -> Any:
    """Return the type of a question: not blank, and within the limits of a service."""
    return Annotated[
        str,
        Field(min_length=1, max_length=limits.max_question_characters, json_schema_extra={"pattern": r"\S"}),
        AfterValidator(_not_blank),
    ]


def search_options(limits: Settings, most_k: int, about_k: str) -> dict[str, Any]:
    """Return the fields with the search options, for `create_model`."""
    return {
        "k": (int, Field(10, ge=1, le=most_k, description=about_k)),
        "num_query_vectors": (
            Annotated[int, Field(ge=1, le=limits.max_num_query_vectors)] | None,
            Field(None, description="m, query vectors per question; null: the model's own number"),
        ),
        "fusion": (
            FusionName | None,
            Field(None, description="how to combine the m lists; null: the fusion that the model was trained for"),
        ),
        "filter": (
            Annotated[str, Field(min_length=1, max_length=limits.max_filter_characters)] | None,
            Field(None, description='condition on the metadata, such as year >= 1990 and lang == "en"'),
        ),
    }


def search_request(limits: Settings) -> type[SearchRequest]:
    """Make the schema of a search request with the limits of a service, which OpenAPI then shows."""
    about_k = f"documents per question; at most {limits.max_documents} for all questions"
    of_type: Any = list  # a type made at run time
    return create_model(
        "SearchRequest",
        __base__=SearchRequest,
        __doc__="Questions and how to search them.",
        questions=(of_type[question_type(limits)], Field(min_length=1, max_length=limits.max_questions)),
        **search_options(limits, limits.max_k, about_k),
    )


def explore_request(limits: Settings) -> type[ExploreRequest]:
    """Make the schema of an explore request with the limits of a service."""
    return create_model(
        "ExploreRequest",
        __base__=ExploreRequest,
        __doc__="One question and how to search it.",
        question=(question_type(limits), ...),
        **search_options(limits, most_explored(limits), "documents per list"),
    )


def most_explored(limits: Settings) -> int:
    """Return the limit of documents per list of an exploration."""
    return min(limits.max_k, MOST_EXPLORED)


def served_name(searcher: Searcher) -> str:
    """Return the public name of the model."""
    return public_name(searcher.model.config.name_or_path) or "amer"


def question_answer(hits: list[Hit]) -> bytes:
    """Return the hits of a question as the JSON of a `QuestionAnswer`."""
    return QuestionAnswer(hits=[_found(hit) for hit in hits]).model_dump_json().encode()


def search_answer(answers: list[bytes]) -> bytes:
    """Return the JSON of a `SearchAnswer`, from the results of `question_answer`."""
    return b'{"answers":[' + b",".join(answers) + b"]}"


def exploration_answer(found: Exploration) -> bytes:
    """Return an exploration as the JSON of an `ExploreAnswer`."""
    vectors = []
    for number, hits in enumerate(found.lists):
        part = found.parts[number] if number < len(found.parts) else VectorWords("", [])
        vectors.append(QueryVector(part=part.text, spans=part.spans, hits=_shortened(hits)))
    encoder = None
    if found.encoder is not None:
        encoder = EncoderAlone(hits=_shortened(found.encoder), ranks=found.encoder_ranks, depth=found.depth)
    places = [Place(**{**point._asdict(), "text": excerpt(point.text, LONGEST_LABEL)}) for point in found.map]
    answer = ExploreAnswer(hits=_shortened(found.hits), vectors=vectors, encoder=encoder, map=places)
    return answer.model_dump_json().encode()


def _found(hit: Hit) -> FoundDocument:
    return FoundDocument(**{**hit._asdict(), "metadata": dict(hit.metadata)})


def _shortened(hits: list[Hit]) -> list[FoundDocument]:
    cut = [hit.text if len(hit.text) <= LONGEST_TEXT else f"{hit.text[:LONGEST_TEXT].rstrip()}…" for hit in hits]
    return [_found(hit._replace(text=text)) for hit, text in zip(hits, cut, strict=True)]


def _not_blank(question: str) -> str:
    if not question.strip():
        raise ValueError("a question must not be blank")
    return question
