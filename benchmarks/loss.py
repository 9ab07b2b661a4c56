"""The matched loss over many candidates: time and peak memory, compared with a reference that holds all logits."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product

import reference
import torch
from common import Row, median_seconds, peak_memory, run
from torch.autograd import grad
from torch.nn.functional import normalize

from amer.trainer.losses import matched_info_nce

SYSTEMS = {"all logits": reference.info_nce, "AMER": matched_info_nce}


OPTIONS = {
    "batch": (32, "questions per step"),
    "num_query_vectors": (5, "m"),
    "dim": (384, "dimension of the document embeddings"),
    "candidates": ([10_000, 100_000], "documents scored"),
}


def measure(arguments: argparse.Namespace) -> list[Row]:
    """A row per system and number of candidates; growth compares the peak memory with that of the first row."""
    rows: list[Row] = []
    for (system, objective), count in product(SYSTEMS.items(), arguments.candidates):
        vectors, targets = make_problem(count, arguments)
        loss = partial(objective, vectors, **targets)
        figures = {"system": system, "candidates": count}
        figures["ms"] = 1000 * median_seconds(lambda loss=loss, x=vectors: grad(loss(), x), arguments.repeats)
        figures["loss"] = loss().item()
        figures["peak MB"] = peak_memory(lambda loss=loss, x=vectors: grad(loss(), x), arguments.device) / 2**20
        first = next((row for row in rows if row["system"] == system), figures)
        rows.append({**figures, "peak's growth": figures["peak MB"] / first["peak MB"]})
    return rows


def make_problem(count: int, arguments: argparse.Namespace) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Draw query vectors `(batch, m, dim)` that require a gradient, and the other arguments of a loss."""
    batch, m, device = arguments.batch, arguments.num_query_vectors, arguments.device
    generator = torch.Generator().manual_seed(arguments.seed)
    vectors = torch.randn(batch, m, arguments.dim, generator=generator)
    candidates = torch.randn(count, arguments.dim, generator=generator)
    targets = {
        "candidates": normalize(candidates, dim=-1).to(device),
        "target_index": torch.arange(batch * m, device=device).reshape(batch, m),
        "target_mask": torch.ones(batch, m, dtype=torch.bool, device=device),
    }
    return normalize(vectors, dim=-1).to(device).requires_grad_(), targets


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
