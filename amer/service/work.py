"""The kinds of work of a service. Each answers several questions at a time, in the batcher's thread."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from amer.search import Searcher
from amer.search.exploring import explore
from amer.search.fusion import FusionName
from amer.service.schemas import exploration_answer, question_answer


class Work(Protocol):
    """A kind of work with its options. Waiting questions with equal work are answered together."""

    def answers(self, searcher: Searcher, questions: list[str]) -> list[Any]:
        """Return one answer per question as JSON. Made here, since megabytes of JSON would block the event loop."""


@dataclass(frozen=True)
class Search:
    """Find the documents of each question. Options as in `Searcher.search`."""

    k: int
    num_query_vectors: int | None
    fusion: FusionName | None
    filter: str | None

    def answers(self, searcher: Searcher, questions: list[str]) -> list[bytes]:
        """Return the JSON of a `QuestionAnswer` per question."""
        return [question_answer(hits) for hits in searcher.search(questions, **asdict(self))]


@dataclass(frozen=True)
class Explore(Search):
    """Find the documents of each question and the steps of the search."""

    def answers(self, searcher: Searcher, questions: list[str]) -> list[bytes]:
        """Return the JSON of an `ExploreAnswer` per question."""
        return [exploration_answer(found) for found in explore(searcher, questions, **asdict(self))]


class Embedded(NamedTuple):
    """The query vectors of one text.

    Attributes:
        tokens: Number of tokens in the text.
        vectors: The JSON of each vector.
    """

    tokens: int
    vectors: list[bytes]


@dataclass(frozen=True)
class Embed:
    """Encode each question into query vectors."""

    num_query_vectors: int | Literal["auto"]
    encoding_format: Literal["float", "base64"]

    def answers(self, searcher: Searcher, questions: list[str]) -> list[Embedded]:
        """Return the vectors that the model emitted for each question."""
        query_embeddings = searcher.encode(questions, self.num_query_vectors)
        model = searcher.model
        tokenizer = model.document_encoder.tokenizer if model.config.token_vectors else model.tokenizer
        tokens = [len(ids) for ids in tokenizer(questions, add_special_tokens=False)["input_ids"]]
        write = _base64 if self.encoding_format == "base64" else _floats
        return [
            Embedded(count, [write(vector) for vector in vectors[vectors.any(axis=-1)]])  # zeros stand for no vector
            for count, vectors in zip(tokens, query_embeddings, strict=True)
        ]


def _floats(vector: np.ndarray) -> bytes:
    """Return the JSON of a vector. Nine digits represent every float32 exactly."""
    return f"[{','.join(f'{value:.9g}' for value in vector.tolist())}]".encode()


def _base64(vector: np.ndarray) -> bytes:
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())
