"""Round-robin fusion of m ranked lists: ours for all questions at once beside the plain loop in Python.

The loop finds the fused rows alone; ours gives scores and where each document was found as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product

import numpy as np
from common import Row, median_seconds, run

from amer.search import round_robin

OPTIONS = {
    "questions": (1000, "fused in one call"),
    "vectors": ([5], "m, lists of each question"),
    "length": (100, "documents of a list"),
    "k": (100, "documents of the fused list"),
    "overlaps": ([0.3, 0.9, 1.0], "shares of a list that all lists draw from"),
}


def make_lists(questions: int, m: int, length: int, overlap: float, seed: int) -> np.ndarray:
    """Rows `(questions, m, length)`: each holds, with chance `overlap`, one of `length` that all lists share."""
    generator = np.random.default_rng(seed)
    shared = generator.permuted(np.broadcast_to(np.arange(length), (questions, m, length)), axis=2)
    own = length + np.arange(m * length).reshape(m, length)
    first_row = generator.integers(0, 100_000, (questions, 1, 1))
    return first_row + np.where(generator.random(shared.shape) < overlap, shared, own)


def plain_fusion(rows: np.ndarray, k: int) -> list[list[int]]:
    """The paper's §4.2 as one writes it: rank by rank, list by list, until there are k."""
    fused = []
    for lists in rows.tolist():
        found, seen = [], set()
        for rank in zip(*lists, strict=True):
            for row in rank:
                if row not in seen:
                    seen.add(row)
                    found.append(row)
            if len(found) >= k:
                break
        fused.append(found[:k])
    return fused


def compare(m: int, overlap: float, arguments: argparse.Namespace) -> list[Row]:
    """The loop's row and ours, on the same lists."""
    rows = make_lists(arguments.questions, m, arguments.length, overlap, arguments.seed)
    scores = np.broadcast_to(np.linspace(1, 0, arguments.length, dtype=np.float32), rows.shape)
    loop = median_seconds(lambda: plain_fusion(rows, arguments.k), arguments.repeats)
    ours = median_seconds(lambda: round_robin(rows, scores, arguments.k), arguments.repeats)
    fused = [[row for row in found if row >= 0] for found in round_robin(rows, scores, arguments.k).rows.tolist()]
    same = np.mean([found == expected for found, expected in zip(fused, plain_fusion(rows, arguments.k), strict=True)])
    case = {"m": m, "overlap": overlap}
    return [
        {**case, "system": "plain loop", "ms": 1000 * loop, "ratio": 1.0},
        {**case, "system": "AMER", "ms": 1000 * ours, "ratio": loop / ours, "lists like the loop's": float(same)},
    ]


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Every number of lists with every overlap."""
    for m, overlap in product(arguments.vectors, arguments.overlaps):
        yield from compare(m, overlap, arguments)


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
