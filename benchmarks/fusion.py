"""Round-robin fusion of m ranked lists: AMER's for all questions at once, compared with a plain Python loop.

The loop finds only the fused rows; AMER also returns scores and the query vector that found each document.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product

import numpy as np
from common import Row, median_seconds, run

from amer.search import round_robin

OPTIONS = {
    "questions": (1000, "questions to fuse in one call"),
    "vectors": ([5], "m, lists of each question"),
    "length": (100, "documents in a list"),
    "k": (100, "documents in the fused list"),
    "overlaps": ([0.3, 0.9, 1.0], "shares of a list from documents that all lists share"),
}


def make_lists(questions: int, m: int, length: int, overlap: float, seed: int) -> np.ndarray:
    """Draw rows `(questions, m, length)`; each is, with probability `overlap`, one of `length` shared rows."""
    generator = np.random.default_rng(seed)
    shared = generator.permuted(np.broadcast_to(np.arange(length), (questions, m, length)), axis=2)
    own = length + np.arange(m * length).reshape(m, length)
    first_row = generator.integers(0, 100_000, (questions, 1, 1))
    return first_row + np.where(generator.random(shared.shape) < overlap, shared, own)


def plain_fusion(rows: np.ndarray, k: int) -> list[list[int]]:
    """The paper's §4.2 as a plain loop: rank by rank, list by list, until there are k."""
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
    """The rows of the loop and of AMER, on the same lists."""
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
    """Measure every number of lists with every overlap."""
    for m, overlap in product(arguments.vectors, arguments.overlaps):
        yield from compare(m, overlap, arguments)


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
