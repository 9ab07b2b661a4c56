"""The assignment of query vectors to targets: one batch at a time beside a transfer for every row.

Its share of a training step is among the phases of training.py.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import arguments_of, median_seconds, report
from reference import match_rows

from amer.trainer.matching import match, match_on_device

SYSTEMS = {"scipy, row by row": match_rows, "match": match, "match_on_device": match_on_device}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__file__, __doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128, 512], help="questions")
    parser.add_argument("--vectors", type=int, nargs="+", default=[5, 8], help="m, query vectors of each question")
    return parser.parse_args()


def compare(batch: int, m: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way of matching, on the same random costs; the first is the reference."""
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


def main() -> None:
    """Measure every size."""
    arguments = parse_arguments()
    report(
        arguments,
        [row for m in arguments.vectors for batch in arguments.batches for row in compare(batch, m, arguments)],
    )


if __name__ == "__main__":
    main()
