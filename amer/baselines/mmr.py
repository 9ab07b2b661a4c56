"""Maximal marginal relevance: re-rank a list so that it does not repeat itself (paper A.7, Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from amer.corpus.store import DocumentStore

TRADE_OFFS = (0.5, 0.75, 0.9)  # paper A.7
GATHER_VALUES = 2**24  # document values held at a time: 64 MiB of float32


def mmr(
    rows: np.ndarray, scores: np.ndarray, store: DocumentStore, k: int, trade_off: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose k of n candidates one by one, each like the query and unlike those chosen before (paper A.7, Eq. 3).

    The next is the one of the greatest `trade_off * Sim_q - (1 - trade_off) * max Sim_d`, of equals the earlier
    candidate. Sim_d is the cosine of two documents. Before anything is chosen its maximum counts as -1, the least
    cosine: the first is the best by Sim_q, and the scores of a list never rise.

    Args:
        rows: `(q, n)` integer rows of the candidates, in the paper the 500 best; -1 is padding.
        scores: `(q, n)`, Sim_q: the cosine of each candidate with the query.
        store: where the rows point.
        k: length of the lists.
        trade_off: lambda, from 0 to 1; 1 orders by Sim_q alone.

    Returns:
        rows `(q, k)` int64 and the greatest values of Eq. 3 `(q, k)` float32, in the order of choice; row -1 and
        score -inf where the candidates run out.

    Raises:
        ValueError: another shape or type, a candidate's score that is not finite, k < 1, a trade_off beyond 0 to 1.
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
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)  # half precision is not quite of unit length
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
        rows: as in `mmr`.
        scores: as in `mmr`.
        store: as in `mmr`.
        k: as in `mmr`.
        metric: given the chosen rows `(q, k)`, how good they are; the greater the better.
        trade_offs: the values to try.

    Returns:
        the best value, of equals the largest, which changes the list least; and the metric of every value.

    Raises:
        ValueError: as `mmr`; a metric that is not a number, or no value to try.
    """
    metrics = {trade_off: float(metric(mmr(rows, scores, store, k, trade_off)[0])) for trade_off in trade_offs}
    if not metrics or np.isnan(list(metrics.values())).any():
        raise ValueError(f"the metric must be a number for each of one or more trade_offs, got {metrics}")
    return max(metrics, key=lambda trade_off: (metrics[trade_off], trade_off)), metrics


def _greedy(relevance: np.ndarray, vectors: np.ndarray, penalty: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What to choose for one question, and its value of Eq. 3: both `(k,)`.

    Only the cosines with what was chosen are computed, k of n rows: the whole matrix takes longer.
    `relevance (n,)`, lambda times Sim_q, is changed in place; -inf cannot be chosen. `penalty` is 1 - lambda.
    """
    nearest = np.full_like(relevance, -1)  # the greatest Sim_d to what was chosen
    order, values = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.float32)
    for place in range(k):
        worth = relevance - penalty * nearest
        order[place] = best = worth.argmax()  # of equals the first
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
