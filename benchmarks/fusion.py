"""Round-robin fusion of m ranked lists: ours for all questions at once beside the plain loop in Python.

The loop finds the fused rows alone; ours gives scores and where each document was found as well.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import arguments_of, median_seconds, report

from amer.search import round_robin


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__file__, __doc__)
    parser.add_argument("--questions", type=int, default=1000, help="fused in one call")
    parser.add_argument("--vectors", type=int, nargs="+", default=[5], help="m, lists of each question")
    parser.add_argument("--length", type=int, default=100, help="documents of a list")
    parser.add_argument("--k", type=int, default=100, help="documents of the fused list")
    parser.add_argument(
        "--overlaps", type=float, nargs="+", default=[0.3, 0.9, 1.0], help="shares of a list that all lists draw from"
    )
    return parser.parse_args()


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


def compare(m: int, overlap: float, arguments: argparse.Namespace) -> list[dict[str, Any]]:
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


def main() -> None:
    """Measure every case."""
    arguments = parse_arguments()
    report(
        arguments,
        [row for m in arguments.vectors for overlap in arguments.overlaps for row in compare(m, overlap, arguments)],
    )


if __name__ == "__main__":
    main()
