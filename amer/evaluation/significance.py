"""Paired bootstrap test over queries (paper §6.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BLOCK_VALUES = 2**22  # counts to draw at a time: 32 MiB of int64


class BootstrapResult(NamedTuple):
    """Mean of `a - b` over the queries, its 95% percentile interval `low..high`, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int = 10_000, seed: int = 0) -> BootstrapResult:
    """Test whether two systems differ on the same queries.

    The test resamples the queries with replacement, `resamples` times. Let d be the observed mean difference, and d_r
    that of resample r. The p-value is `(1 + #{r : |d_r - d| >= |d|}) / (1 + resamples)`: the share of resamples whose
    difference, centred on zero, is at least as large as the observed one. It is never below `1 / (1 + resamples)`, is
    1 for equal systems, and does not change if a and b are exchanged.

    Args:
        a: `(q,)` values of one system.
        b: `(q,)` values of the other system, for the same queries.
        resamples: Number of resamples.
        seed: The same seed gives the same result.

    Raises:
        ValueError: `a` and `b` are not finite vectors of one length, there are fewer than two queries, or
            resamples < 1.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"a and b must have the same shape (q,) with q >= 2 queries, got {a.shape} and {b.shape}")
    differences = a - b
    if not np.isfinite(differences).all():
        raise ValueError("a or b holds NaN or infinite values: drop those queries from both, or correct the values")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    difference = float(differences.mean())
    means = _resampled_means(differences, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    tolerance = 1e-12  # rounding must not break ties, which are frequent in differences of 0/1 metrics
    extreme = np.count_nonzero(np.abs(means - difference) >= abs(difference) - tolerance)
    return BootstrapResult(difference, float(low), float(high), (1 + extreme) / (1 + resamples))


def _resampled_means(differences: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means `(resamples,)` of resamples drawn with replacement.

    A mean depends only on the count of each distinct value, and these counts are multinomial. Metrics have few
    distinct values, so drawing counts is far cheaper than drawing queries.
    """
    values, first, counts = np.unique(differences.round(12), return_index=True, return_counts=True)
    order = np.argsort(first)  # in order of appearance, so that `b - a` gives the same draws
    values, shares = values[order], counts[order] / len(differences)
    step = max(1, BLOCK_VALUES // len(values))
    blocks = [min(step, resamples - start) for start in range(0, resamples, step)]
    draws = (generator.multinomial(len(differences), shares, size=block) @ values for block in blocks)
    return np.concatenate(list(draws)) / len(differences)
