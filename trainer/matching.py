"""Optimal matching of the emitted query vectors to the unordered targets (paper §4.1, Eq. 2)."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment

LARGE = 1e30  # stands for a cost that is not finite
MAX_ON_DEVICE = 10  # beyond it the subsets are too many, and scipy is asked


def match(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The assignment of least total cost in each row: by `match_on_device` on a CUDA device, by scipy elsewhere.

    Costs that are not finite count as very large: the loss of such a batch is not finite either, and it is for the
    trainer to refuse it, in all processes alike.

    Args:
        costs: `(batch, m, m)`, cost of giving query vector i (axis 1) target j (axis 2).
        mask: `(batch, m)` bool; row b has `mask[b].sum()` targets, which come first.

    Returns:
        `(batch, m)` int64: the target of each query vector; its own position where there is no target.
    """
    values = torch.nan_to_num(costs.detach(), nan=LARGE, posinf=LARGE, neginf=-LARGE)
    if costs.is_cuda and costs.shape[1] <= MAX_ON_DEVICE:
        return match_on_device(values, mask)
    return _match_by_scipy(values.cpu(), mask.cpu()).to(costs.device)


def _match_by_scipy(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The Hungarian algorithm, row by row on the CPU."""
    assignment = torch.arange(costs.shape[1]).repeat(costs.shape[0], 1)
    for row, size in enumerate(mask.sum(dim=1).tolist()):
        assignment[row, :size] = torch.from_numpy(linear_sum_assignment(costs[row, :size, :size].numpy())[1])
    return assignment


def match_on_device(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """All rows at once where the costs lie, with no transfer: the exact dynamic programme over subsets of targets.

    `best[S]` is the least cost of giving the first |S| query vectors the targets of S, one more vector at each step.
    Time and memory grow with `2^m * m`.

    Args:
        costs: `(batch, m, m)`, finite.
        mask: `(batch, m)` bool, as in `match`.

    Returns:
        `(batch, m)` int64, as `match`; of several assignments of one cost, any.
    """
    batch, m, _ = costs.shape
    costs = _keep_padding_in_place(costs.double(), mask)
    best = costs.new_zeros(batch, 2**m)
    taken = torch.zeros(batch, 2**m, dtype=torch.int64, device=costs.device)  # the target that the last vector got
    for vector, level in enumerate(_levels(m, costs.device)):
        totals = best[:, level.without] + costs[:, vector][:, level.targets]  # (batch, subsets, vector + 1)
        best[:, level.subsets], choice = totals.min(dim=2)
        taken[:, level.subsets] = level.targets.expand(batch, -1, -1).gather(2, choice[:, :, None]).squeeze(2)
    subset = torch.full((batch, 1), 2**m - 1, device=costs.device)
    assignment = []
    for _ in range(m):
        assignment.append(taken.gather(1, subset))
        subset = subset - (1 << assignment[-1])
    return torch.cat(assignment[::-1], dim=1)


def _keep_padding_in_place(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Costs with which a position without a target can only be matched with itself, for nothing."""
    real = mask[:, :, None] & mask[:, None, :]
    own = torch.eye(costs.shape[1], dtype=torch.bool, device=costs.device) & ~real
    return costs.masked_fill(~real, torch.inf).masked_fill(own, 0.0)


class _Level(NamedTuple):
    """All subsets of one size, as bit patterns `(s,)`; their targets, and what is left without each, `(s, size)`."""

    subsets: torch.Tensor
    targets: torch.Tensor
    without: torch.Tensor


@lru_cache
def _levels(m: int, device: torch.device) -> list[_Level]:
    """The subsets of m targets, by size, as bit patterns."""
    levels = []
    for size in range(1, m + 1):
        targets = torch.tensor(list(combinations(range(m), size)), device=device)
        subsets = (1 << targets).sum(dim=1)
        levels.append(_Level(subsets, targets, subsets[:, None] - (1 << targets)))
    return levels
