"""Optimal matching of the emitted query vectors to the unordered targets (paper §4.1, Eq. 2)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment


def match(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The assignment of least total cost in each row, by the Hungarian algorithm.

    Args:
        costs: `(batch, m, m)`, cost of giving query vector i (axis 1) target j (axis 2). Moved to the CPU once for
            the whole batch.
        mask: `(batch, m)` bool; row b has `mask[b].sum()` targets, which come first.

    Returns:
        `(batch, m)` int64: the target of each query vector; its own position where there is no target.

    Raises:
        ValueError: a cost that is not finite, as a diverged model gives.
    """
    values, mask = costs.detach().float().cpu(), mask.cpu()
    if not torch.isfinite(values[mask[:, :, None] & mask[:, None, :]]).all():
        raise ValueError("The scores to match are not finite: training has diverged; lower the learning rate.")
    assignment = torch.arange(costs.shape[1]).repeat(costs.shape[0], 1)
    for row, size in enumerate(mask.sum(dim=1).tolist()):
        assignment[row, :size] = torch.from_numpy(linear_sum_assignment(values[row, :size, :size].numpy())[1])
    return assignment.to(costs.device)
