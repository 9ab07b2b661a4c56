"""Maximal marginal relevance over the best documents of a question, beside Eq. 3 of the paper as one writes it down.

The plain greedy computes, at each step and for each candidate, its cosines with all that was chosen. It is measured on
fewer questions.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments_of, median_seconds, report, store_without_texts

from amer.baselines.mmr import mmr
from amer.corpus import DocumentStore

Lists = tuple[np.ndarray, np.ndarray, DocumentStore, int, float]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__file__, __doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="documents of the store")
    parser.add_argument("--dim", type=int, default=384, help="size of an embedding")
    parser.add_argument("--questions", type=int, default=200, help="re-ranked in one call")
    parser.add_argument("--reference_questions", type=int, default=2, help="of these, how many the plain greedy gets")
    parser.add_argument("--candidates", type=int, default=500, help="documents of a list")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100], help="documents chosen")
    parser.add_argument("--trade_off", type=float, default=0.75, help="lambda of Eq. 3")
    return parser.parse_args()


def make_store(folder: str, arguments: argparse.Namespace) -> DocumentStore:
    """Random unit vectors in half precision."""
    vectors = np.random.default_rng(arguments.seed).standard_normal((arguments.rows, arguments.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return store_without_texts(Path(folder) / "store", arguments.rows, vectors)


def make_lists(store: DocumentStore, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The candidates of random questions: rows and cosines, both `(questions, candidates)`."""
    queries = np.random.default_rng(arguments.seed + 1).standard_normal((arguments.questions, store.dim))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = queries.astype(np.float32) @ store.vectors(range(len(store))).T
    rows = np.argsort(-scores, axis=1)[:, : arguments.candidates]
    return rows, np.take_along_axis(scores, rows, axis=1)


def plain_greedy(rows: np.ndarray, scores: np.ndarray, store: DocumentStore, k: int, trade_off: float) -> list:
    """Eq. 3 as one writes it down."""
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


def compare(lists: Lists, few: int, repeats: int) -> list[dict[str, Any]]:
    """The plain greedy's row, of the first few questions, and ours."""
    rows, scores, *rest = lists
    plain = median_seconds(lambda: plain_greedy(rows[:few], scores[:few], *rest), repeats, warm_up=0) / few
    ours = median_seconds(lambda: mmr(*lists), repeats) / len(rows)
    expected, found = plain_greedy(rows[:few], scores[:few], *rest), mmr(*lists)[0][:few].tolist()
    same = np.mean([own == other for own, other in zip(found, expected, strict=True)])
    case = {"candidates": rows.shape[1], "k": rest[1]}
    return [
        {**case, "system": "plain greedy", "ms a question": 1000 * plain, "ratio": 1.0},
        {
            **case,
            "system": "AMER",
            "ms a question": 1000 * ours,
            "ratio": plain / ours,
            "lists like the greedy's": float(same),
        },
    ]


def main() -> None:
    """Measure every k."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(folder, arguments)
        lists = make_lists(store, arguments)
        cases = [(*lists, store, k, arguments.trade_off) for k in arguments.k]
        rows = [row for case in cases for row in compare(case, arguments.reference_questions, arguments.repeats)]
    report(arguments, rows)


if __name__ == "__main__":
    main()
