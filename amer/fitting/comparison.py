"""The trained model beside what it has to beat, on the test questions, all searched and timed in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from amer.baselines.splitting import encode_parts, split_by_rule, split_by_spans
from amer.data import RetrievalDataset
from amer.evaluation import SystemResult, evaluate_embeddings
from amer.search import ExactIndex

if TYPE_CHECKING:
    from modeling_amer import AMERModel

ENCODER, RULE, ONE, AMER, TOLD = "encoder alone", "split by rule", "one vector", "AMER", "told the split"
KS = (10, 100)
WARM_UP = 64  # questions that are encoded before the clock starts: the first batches of a shape are slow


@dataclass(frozen=True, eq=False)
class Comparison:
    """Five systems on the same questions.

    Attributes:
        systems: the encoder with the whole question, with its parts by rule, one trained vector, AMER with as many
            vectors as it chooses, and the encoder with the true parts.
        parts: `(q,)` how many parts each question has.
        chosen: `(q,)` how many vectors AMER chose.
    """

    systems: list[SystemResult]
    parts: np.ndarray
    chosen: np.ndarray

    @property
    def parts_right(self) -> float:
        """Share of the questions for which AMER chose as many vectors as there are parts."""
        return float((self.chosen == self.parts).mean())

    def by_parts(self, metric: str) -> dict[str, dict[int, float]]:
        """System -> number of parts -> mean of the metric over the questions of so many parts."""
        numbers = np.unique(self.parts).tolist()
        return {
            system.name: {number: float(system.values[metric][self.parts == number].mean()) for number in numbers}
            for system in self.systems
        }


def compare(
    model: AMERModel, one_vector: AMERModel, test: RetrievalDataset, index: ExactIndex, console: Console
) -> Comparison:
    """Encode, search and score the test questions with each system.

    Args:
        model: chooses how many vectors a question gets.
        one_vector: trained alike, for one.
        test: questions in text, with `spans`.
        index: of the documents.
        console: for the progress.

    Raises:
        ValueError: questions without texts or spans.
    """
    if test.queries is None or test.spans is None:
        raise ValueError("the test questions need texts and spans: build them with `amer dataset compound`")
    questions, spans, encoder = test.queries, test.spans, model.document_encoder

    def encode(texts: list[str]) -> np.ndarray:
        return encoder.encode(texts).numpy()

    ways: dict[str, Callable[[], Any]] = {
        ENCODER: lambda: encode(questions)[:, None],
        RULE: lambda: encode_parts([split_by_rule(question) for question in questions], encode),
        ONE: lambda: one_vector.encode_query(questions),
        AMER: lambda: model.encode_query(questions, num_query_vectors="auto").query_embeddings,
        TOLD: lambda: encode_parts([split_by_spans(*pair) for pair in zip(questions, spans, strict=True)], encode),
    }
    one_vector.encode_query(questions[:WARM_UP])
    model.encode_query(questions[:WARM_UP], num_query_vectors="auto")
    linked, systems, chosen = test.link(index.store), [], np.empty(0)
    for name, way in track(ways.items(), "Systems", console=console):
        started = time.perf_counter()
        query_embeddings = np.asarray(way())
        seconds = (time.perf_counter() - started) / len(questions)
        systems.append(evaluate_embeddings(query_embeddings, linked, index, name, KS, encoding_seconds=seconds))
        if name == AMER:
            chosen = (query_embeddings != 0).any(axis=-1).sum(axis=1)
    return Comparison(systems, np.array([len(targets) for targets in test.targets]), chosen)
