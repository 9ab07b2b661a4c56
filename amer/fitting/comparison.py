"""Compare the trained model with its baselines on the test questions, all searched and timed in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from amer.baselines.splitting import RULE, TOLD, encode_parts, split_by_rule, split_by_spans
from amer.data import RetrievalDataset
from amer.evaluation import SystemResult, evaluate_embeddings
from amer.search import ExactIndex

if TYPE_CHECKING:
    from modeling_amer import AMERModel

ENCODER, ONE, AMER = "encoder alone", "one vector", "AMER"
KS = (10, 100)
WARM_UP = 64  # questions to encode before the clock starts, because the first batches of a shape are slow


@dataclass(frozen=True, eq=False)
class Comparison:
    """Five systems on the same questions.

    Attributes:
        systems: The encoder on the whole question, the encoder on parts split by rule, the model of one vector, AMER
            with its own choice of m, and the encoder on the true parts.
        parts: `(q,)` number of parts of each question.
        chosen: `(q,)` number of vectors that AMER chose.
    """

    systems: list[SystemResult]
    parts: np.ndarray
    chosen: np.ndarray

    @property
    def parts_right(self) -> float:
        """Share of the questions for which AMER chose the right number of vectors: one per part."""
        return float((self.chosen == self.parts).mean())

    def by_parts(self, metric: str) -> dict[str, dict[int, float]]:
        """Mean of a metric for each system and each number of parts."""
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
        model: Model that chooses the number of vectors per question.
        one_vector: Model trained the same way, for one vector.
        test: Questions in text, with `spans`.
        index: Index of the documents.
        console: Console for the progress.

    Raises:
        ValueError: The questions have no texts or no spans.
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
