"""The matched loss over many candidates: time and peak memory, beside the reference that holds all logits at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import reference
import torch
from common import arguments_of, median_seconds, peak_memory, report
from torch.nn.functional import normalize

from amer.trainer.losses import matched_info_nce

SYSTEMS = {"all logits": reference.info_nce, "AMER": matched_info_nce}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = arguments_of(__file__, __doc__)
    parser.add_argument("--batch", type=int, default=32, help="questions of a step")
    parser.add_argument("--num_query_vectors", type=int, default=5, help="m")
    parser.add_argument("--dim", type=int, default=384, help="size of the document embeddings")
    parser.add_argument("--candidates", type=int, nargs="+", default=[10_000, 100_000], help="documents scored")
    return parser.parse_args()


def compare(system: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of candidates; the growth is that of peak memory since the first."""
    rows = []
    for count in arguments.candidates:
        learn, loss = _problem(SYSTEMS[system], count, arguments)
        seconds = median_seconds(learn, arguments.repeats)
        rows.append({"system": system, "candidates": count, "ms": 1000 * seconds, "loss": loss().item()})
        rows[-1]["peak MB"] = peak_memory(learn, arguments.device) / 2**20
        rows[-1]["peak's growth"] = rows[-1]["peak MB"] / rows[0]["peak MB"]
    return rows


def _problem(
    objective: Callable[..., torch.Tensor], count: int, arguments: argparse.Namespace
) -> tuple[Callable, Callable]:
    """Two functions without arguments: the loss with its gradient, and the loss alone."""
    batch, m = arguments.batch, arguments.num_query_vectors
    generator = torch.Generator().manual_seed(arguments.seed)
    vectors = torch.randn(batch, m, arguments.dim, generator=generator)
    vectors = normalize(vectors, dim=-1).to(arguments.device).requires_grad_()
    candidates = normalize(torch.randn(count, arguments.dim, generator=generator), dim=-1).to(arguments.device)
    index = torch.arange(batch * m, device=arguments.device).reshape(batch, m)
    targets = {
        "candidates": candidates,
        "target_index": index,
        "target_mask": torch.ones_like(index, dtype=torch.bool),
    }

    def loss() -> torch.Tensor:
        return objective(vectors, **targets)

    return lambda: torch.autograd.grad(loss(), vectors), loss


def main() -> None:
    """Measure both."""
    arguments = parse_arguments()
    report(arguments, [row for system in SYSTEMS for row in compare(system, arguments)])


if __name__ == "__main__":
    main()
