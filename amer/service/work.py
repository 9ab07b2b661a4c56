"""What a service does for its clients, for several questions at a time; each runs in the batcher's thread."""

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
    """Some work with its options; questions that wait for equal work are answered together."""

    def answers(self, searcher: Searcher, questions: list[str]) -> list[Any]:
        """One answer a question. Its JSON is made here: it may have megabytes, and the event loop must go on."""


@dataclass(frozen=True)
class Search:
    """The documents of each question, as `Searcher.search` takes its options."""

    k: int
    num_query_vectors: int | None
    fusion: FusionName | None
    filter: str | None

    def answers(self, searcher: Searcher, questions: list[str]) -> list[bytes]:
        """The JSON of a `QuestionAnswer` each."""
        return [question_answer(hits) for hits in searcher.search(questions, **asdict(self))]


@dataclass(frozen=True)
class Explore(Search):
    """The same with all that the search passes."""

    def answers(self, searcher: Searcher, questions: list[str]) -> list[bytes]:
        """The JSON of an `ExploreAnswer` each."""
        return [exploration_answer(found) for found in explore(searcher, questions, **asdict(self))]


class Embedded(NamedTuple):
    """The query vectors of one text.

    Attributes:
        tokens: of the text.
        vectors: the JSON of each vector.
    """

    tokens: int
    vectors: list[bytes]


@dataclass(frozen=True)
class Embed:
    """The query vectors of each question."""

    num_query_vectors: int | Literal["auto"]
    encoding_format: Literal["float", "base64"]

    def answers(self, searcher: Searcher, questions: list[str]) -> list[Embedded]:
        """The vectors that the model emitted."""
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
    """Nine digits tell every float32 from its neighbours."""
    return f"[{','.join(f'{value:.9g}' for value in vector.tolist())}]".encode()


def _base64(vector: np.ndarray) -> bytes:
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())
