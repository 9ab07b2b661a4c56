"""Optimal matching of the emitted query vectors to the unordered targets (paper §4.1, Eq. 2)."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment

LARGE = 1e30  # replaces a cost that is not finite
MAX_ON_DEVICE = 10  # above this, there are too many subsets, and scipy does the matching


def match(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The assignment with the lowest total cost in each row.

    `match_on_device` computes it on a CUDA device, scipy elsewhere.
    Costs that are not finite count as very large. The loss of such a batch is not finite either, and the trainer then
    stops all processes.

    Args:
        costs: `(batch, m, m)`, cost of giving query vector i (axis 1) target j (axis 2).
        mask: `(batch, m)` bool; row b has `mask[b].sum()` targets, which come first.

    Returns:
        `(batch, m)` int64: the target of each query vector; its own position if there is no target.
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
    """Match all rows at once on the costs' device: an exact dynamic programme over subsets of targets.

    `best[S]` is the lowest cost of giving the targets of S to the first |S| query vectors. Each step adds one vector.
    Time and memory grow with `2^m * m`.

    Args:
        costs: `(batch, m, m)`, finite.
        mask: `(batch, m)` bool, as in `match`.

    Returns:
        `(batch, m)` int64, as in `match`. If several assignments have the lowest cost, it returns any of them.
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
    """Costs that match every position without a target to itself, at cost zero."""
    real = mask[:, :, None] & mask[:, None, :]
    own = torch.eye(costs.shape[1], dtype=torch.bool, device=costs.device) & ~real
    return costs.masked_fill(~real, torch.inf).masked_fill(own, 0.0)


class _Level(NamedTuple):
    """All subsets of one size as bit patterns `(s,)`; their targets and the subsets without each, `(s, size)`."""

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
