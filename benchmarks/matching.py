"""The assignment of query vectors to targets: batch by batch, compared with a device transfer for every row.

`training.py` reports its share of a training step among the phases.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product

import torch
from common import Row, median_seconds, run
from reference import match_rows

from amer.trainer.matching import match, match_on_device

SYSTEMS = {"scipy, row by row": match_rows, "match": match, "match_on_device": match_on_device}


OPTIONS = {
    "batches": ([8, 32, 128, 512], "questions"),
    "vectors": ([5, 8], "m, query vectors of each question"),
}


def compare(batch: int, m: int, arguments: argparse.Namespace) -> list[Row]:
    """A row per way of matching, on the same random costs; the first is the reference."""
    generator = torch.Generator().manual_seed(arguments.seed)
    costs = torch.rand(batch, m, m, generator=generator).to(arguments.device)
    mask = torch.ones(batch, m, dtype=torch.bool, device=arguments.device)
    rows = []
    for name, function in SYSTEMS.items():
        seconds = median_seconds(lambda function=function: function(costs, mask), arguments.repeats, warm_up=3)
        total = costs.gather(2, function(costs, mask)[:, :, None]).sum().item()
        rows.append({"batch": batch, "m": m, "system": name, "ms": 1000 * seconds, "total cost": total})
        rows[-1]["ratio"] = rows[0]["ms"] / rows[-1]["ms"]
    return rows


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure every size."""
    for m, batch in product(arguments.vectors, arguments.batches):
        yield from compare(batch, m, arguments)


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
