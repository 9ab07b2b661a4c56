"""Maximal marginal relevance: re-ranks a list for diversity (paper A.7, Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from amer.corpus.store import DocumentStore

TRADE_OFFS = (0.5, 0.75, 0.9)  # paper A.7
GATHER_VALUES = 2**24  # document values in memory at a time: 64 MiB of float32


def mmr(
    rows: np.ndarray, scores: np.ndarray, store: DocumentStore, k: int, trade_off: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose k of n candidates one by one, each similar to the query but not to the chosen ones (paper A.7, Eq. 3).

    Each step chooses the candidate with the greatest `trade_off * Sim_q - (1 - trade_off) * max Sim_d`; among equal
    ones, the earlier candidate. Sim_d is the cosine of two documents, and its maximum runs over the chosen documents.
    For the first choice the maximum counts as -1, the smallest cosine: the first choice is then the best by Sim_q, and
    the scores of a list never rise.

    Args:
        rows: `(q, n)` integer rows of the candidates; the paper takes the 500 best; -1 is padding.
        scores: `(q, n)`, Sim_q: the cosine of each candidate with the query.
        store: The store that the rows belong to.
        k: Length of the lists.
        trade_off: lambda, from 0 to 1; 1 orders by Sim_q alone.

    Returns:
        rows `(q, k)` int64 and their values of Eq. 3 `(q, k)` float32, in the order of choice; row -1 and score -inf
        pad lists with too few candidates.

    Raises:
        ValueError: A shape or type is wrong, a candidate's score is not finite, k < 1, or trade_off is not in 0..1.
    """
    rows, scores = _checked(rows, scores, k, trade_off)
    (questions, n), missing = rows.shape, rows < 0
    relevance = trade_off * np.where(missing, 0, scores)
    relevance[missing] = -np.inf
    order = np.zeros((questions, min(k, n)), dtype=np.int64)
    values = np.empty(order.shape, dtype=np.float32)
    step = max(1, GATHER_VALUES // (n * store.dim))
    for start in range(0, questions, step):
        vectors = store.vectors(np.where(missing, 0, rows)[start : start + step])
        vectors /= np.linalg.norm(
            vectors, axis=2, keepdims=True
        )  # vectors in half precision are not exactly of unit length
        for question, candidates in enumerate(vectors, start):
            order[question], values[question] = _greedy(relevance[question], candidates, 1 - trade_off, min(k, n))
    chosen = np.where(np.isneginf(values), -1, np.take_along_axis(rows, order, axis=1))
    places = ((0, 0), (0, k - order.shape[1]))
    return np.pad(chosen, places, constant_values=-1), np.pad(values, places, constant_values=-np.inf)


def tune_trade_off(
    rows: np.ndarray,
    scores: np.ndarray,
    store: DocumentStore,
    k: int,
    metric: Callable[[np.ndarray], float],
    trade_offs: Sequence[float] = TRADE_OFFS,
) -> tuple[float, dict[float, float]]:
    """Choose lambda on validation questions (paper A.7).

    Args:
        rows: As in `mmr`.
        scores: As in `mmr`.
        store: As in `mmr`.
        k: As in `mmr`.
        metric: Function from the chosen rows `(q, k)` to a quality; greater is better.
        trade_offs: The values to try.

    Returns:
        The best value, and the metric of every value. Among equal values the largest is best, since it changes the
        list least.

    Raises:
        ValueError: There is no value to try, the metric is not a number, or `mmr` raises it.
    """
    metrics = {trade_off: float(metric(mmr(rows, scores, store, k, trade_off)[0])) for trade_off in trade_offs}
    if not metrics or np.isnan(list(metrics.values())).any():
        raise ValueError(f"the metric must be a number for each of one or more trade_offs, got {metrics}")
    return max(metrics, key=lambda trade_off: (metrics[trade_off], trade_off)), metrics


def _greedy(relevance: np.ndarray, vectors: np.ndarray, penalty: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The choices for one question, and their values of Eq. 3: both `(k,)`.

    It computes only the cosines with the chosen candidates, k of n rows: the whole matrix would take longer.
    `relevance (n,)`, lambda times Sim_q, is changed in place; -inf cannot be chosen. `penalty` is 1 - lambda.
    """
    nearest = np.full_like(relevance, -1)  # the greatest Sim_d to the chosen candidates
    order, values = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.float32)
    for place in range(k):
        worth = relevance - penalty * nearest
        order[place] = best = worth.argmax()  # the first of equal ones
        values[place] = worth[best]
        relevance[best] = -np.inf
        np.maximum(nearest, vectors @ vectors[best], out=nearest)
    return order, values


def _checked(rows: np.ndarray, scores: np.ndarray, k: int, trade_off: float) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = np.asarray(rows), np.asarray(scores, dtype=np.float32)
    if rows.ndim != 2 or not rows.shape[1] or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"rows must be integers of shape (q, n), n > 0, got {rows.dtype} {rows.shape}")
    if scores.shape != rows.shape or not np.isfinite(scores[rows >= 0]).all():
        raise ValueError(f"scores must be finite and {rows.shape}, as many as rows, got shape {scores.shape}")
    if rows.size and rows.min() < -1:
        raise ValueError(f"rows must be -1 (padding) or more, got {rows.min()}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off must lie between 0 (diverse) and 1 (relevant), got {trade_off}")
    return rows.astype(np.int64, copy=False), scores
