"""Maximal marginal relevance over the best documents of a question, compared with a plain version of Eq. 3 (A.7).

The plain greedy version computes the cosines of each candidate with all chosen ones at each step. It is measured on
fewer questions.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from common import Row, median_seconds, run, store_without_texts

from amer.baselines.mmr import mmr
from amer.corpus import DocumentStore

OPTIONS = {
    "rows": (20_000, "documents in the store"),
    "dim": (384, "dimension of an embedding"),
    "questions": (200, "questions to re-rank in one call"),
    "reference_questions": (2, "questions for the plain greedy version"),
    "candidates": (500, "documents in a list"),
    "k": ([10, 100], "documents chosen"),
    "trade_off": (0.75, "lambda of Eq. 3"),
}


def make_store(folder: str, arguments: argparse.Namespace) -> DocumentStore:
    """Make a store of random unit vectors in half precision."""
    vectors = np.random.default_rng(arguments.seed).standard_normal((arguments.rows, arguments.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return store_without_texts(Path(folder) / "store", arguments.rows, vectors)


def make_lists(store: DocumentStore, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Make the candidates of random questions: rows and cosines, both `(questions, candidates)`."""
    queries = np.random.default_rng(arguments.seed + 1).standard_normal((arguments.questions, store.dim))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = queries.astype(np.float32) @ store.vectors(range(len(store))).T
    rows = np.argsort(-scores, axis=1)[:, : arguments.candidates]
    return rows, np.take_along_axis(scores, rows, axis=1)


def plain_greedy(rows: np.ndarray, scores: np.ndarray, store: DocumentStore, k: int, trade_off: float) -> list:
    """Eq. 3 as a plain loop."""
    lists = []
    for own, cosines in zip(rows, scores, strict=True):
        vectors = store.vectors(own)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        lists.append(own[_plain(vectors, cosines, k, trade_off)].tolist())
    return lists


def _plain(vectors: np.ndarray, scores: np.ndarray, k: int, trade_off: float) -> list[int]:
    left, chosen = list(range(len(scores))), []
    while len(chosen) < k:
        best, best_value = None, -np.inf
        for candidate in left:
            nearest = max((np.dot(vectors[candidate], vectors[other]) for other in chosen), default=0.0)
            value = trade_off * scores[candidate] - (1 - trade_off) * nearest
            if value > best_value:
                best, best_value = candidate, value
        chosen.append(best)
        left.remove(best)
    return chosen


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield, for every k, the row of the plain version (on the first few questions) and that of AMER."""
    few = arguments.reference_questions
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(folder, arguments)
        rows, scores = make_lists(store, arguments)
        for k in arguments.k:
            greedy = partial(plain_greedy, rows[:few], scores[:few], store, k, arguments.trade_off)
            ours = partial(mmr, rows, scores, store, k, arguments.trade_off)
            plain_ms = 1000 * median_seconds(greedy, arguments.repeats, warm_up=0) / few
            ms = 1000 * median_seconds(ours, arguments.repeats) / len(rows)
            same = np.mean([own == other for own, other in zip(ours()[0][:few].tolist(), greedy(), strict=True)])
            case = {"candidates": rows.shape[1], "k": k}
            yield {**case, "system": "plain greedy", "ms a question": plain_ms, "ratio": 1.0}
            figures = {"ms a question": ms, "ratio": plain_ms / ms, "lists like the greedy's": float(same)}
            yield {**case, "system": "AMER", **figures}


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
