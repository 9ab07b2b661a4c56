"""The usual metrics of a ranked list: nDCG, MAP, MRR, precision and alpha-nDCG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amer.evaluation.recall import Targets, check_depth, pad_targets
from amer.extras import import_extra

ALPHA = 0.5  # a target loses this share of its gain each time it is covered again
TREC_NAMES = {"ndcg": "ndcg_cut", "map": "map_cut", "precision": "P"}


def ranking_metrics(rows: np.ndarray, targets: Targets, ks: Sequence[int] = (10, 100)) -> dict[str, np.ndarray]:
    """Compute the TREC metrics at each cut-off; a document is relevant if it covers any of the targets.

    pytrec_eval computes nDCG, MAP, MRR and precision. Its MAP@k divides by the number of all relevant documents, even
    if it exceeds k. This module computes alpha-nDCG (Clarke et al. 2008, alpha = 0.5) itself, since ndeval, the
    library for it, stops at rank 20.

    Args:
        rows: `(q, n)` distinct store rows, best first, with n at least the largest k; -1 is padding, at the end.
        targets: The targets of each query, each a list of rows.
        ks: Cut-offs.

    Returns:
        `{"ndcg@10": (q,), "map@10": (q,), "mrr@10": (q,), "precision@10": (q,), "alpha_ndcg@10": (q,), ...}`, float64.

    Raises:
        ValueError: There is no cut-off, or one is out of range; the lists are not as described, or the lengths differ;
            a query has no targets, or a target has no documents.
        ImportError: pytrec_eval is not installed.
    """
    rows = checked_lists(rows)
    if len(rows) != len(targets) or not len(targets):
        raise ValueError(f"{len(rows)} ranked lists for {len(targets)} queries: give one per query, at least one")
    if not len(ks):
        raise ValueError("no cut-off was given: give ks, such as (10, 100)")
    for k in ks:
        check_depth(k, rows.shape[1])
    for query, clusters in enumerate(targets):
        pad_targets([clusters], query)  # its error names the query with invalid targets
    judged, diverse = _trec_metrics(rows, targets, ks), _alpha_ndcg(rows, targets)
    values: dict[str, np.ndarray] = {}
    for k in ks:
        values |= {f"{name}@{k}": judged[f"{trec_name}_{k}"] for name, trec_name in TREC_NAMES.items()}
        values[f"mrr@{k}"] = np.where(judged["recip_rank"] >= 1 / k, judged["recip_rank"], 0.0)
        values[f"alpha_ndcg@{k}"] = diverse[:, k - 1]
    return values


def checked_lists(rows: np.ndarray) -> np.ndarray:
    """Check ranked lists and return them as int64.

    Raises:
        ValueError: The lists are not integers `(q, n)`, a row is below -1, a list holds a document twice, or padding
            comes before a document.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise ValueError(f"ranked lists must be integer rows (q, n), got {rows.dtype} {rows.shape}")
    if rows.size and rows.min() < -1:
        raise ValueError(f"rows must be -1 (padding) or more, got {rows.min()}")
    in_order = np.sort(rows, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if twice.any():
        query = int(twice.any(axis=1).argmax())
        raise ValueError(f"list number {query} holds row {in_order[query, 1:][twice[query]][0]} twice: fuse it first")
    gaps = ((rows[:, :-1] < 0) & (rows[:, 1:] >= 0)).any(axis=1)
    if gaps.any():
        raise ValueError(f"list number {gaps.argmax()} has padding (-1) before a document: padding belongs at the end")
    return rows.astype(np.int64, copy=False)


def _trec_metrics(rows: np.ndarray, targets: Targets, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """The metrics of pytrec_eval under its own names, `(q,)` each."""
    pytrec_eval = import_extra("pytrec_eval", "paper", "ranking_metrics")
    cutoffs = ",".join(map(str, ks))
    relevant = {
        str(query): {str(row): 1 for cluster in clusters for row in cluster} for query, clusters in enumerate(targets)
    }
    # trec_eval sorts by score, then by id: the negative rank as score keeps our order.
    run = {
        str(query): {str(row): -float(rank) for rank, row in enumerate(ranked) if row >= 0}
        for query, ranked in enumerate(rows.tolist())
    }
    measures = {f"{name}.{cutoffs}" for name in TREC_NAMES.values()} | {"recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(relevant, measures).evaluate(run)
    return {name: np.array([found[query][name] for query in run]) for name in found["0"]}


def _alpha_ndcg(rows: np.ndarray, targets: Targets) -> np.ndarray:
    """alpha-nDCG at every rank, `(q, n)`."""
    depth = rows.shape[1]
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    values = np.empty(rows.shape)
    for query, clusters in enumerate(targets):
        gains = _novelty(_coverage(rows[query], clusters))
        ideal = _ideal_gains(_coverage(np.unique(np.concatenate(clusters)), clusters), depth)
        values[query] = np.cumsum(gains * discounts) / np.cumsum(ideal * discounts)
    return values


def _coverage(rows: np.ndarray, clusters: Sequence[Sequence[int]]) -> np.ndarray:
    """Whether each document covers each target: `(n, m)` of 0 and 1."""
    return np.stack([np.isin(rows, cluster) for cluster in clusters], axis=1).astype(np.float64)


def _novelty(covers: np.ndarray) -> np.ndarray:
    """The gain `(n,)` at each rank of a list `(n, m)`: a target already covered c times adds (1 - alpha)^c."""
    before = np.cumsum(covers, axis=0) - covers
    return (covers * (1 - ALPHA) ** before).sum(axis=1)


def _ideal_gains(covers: np.ndarray, depth: int) -> np.ndarray:
    """Gains `(depth,)` of the ideal list: each rank takes the document with the largest gain, as in ndeval.

    Among equal gains it takes the first document in the store; ndeval takes the last id.
    """
    gains, worth, left = np.zeros(depth), np.ones(covers.shape[1]), covers.copy()
    for rank in range(min(depth, len(covers))):
        gain = left @ worth
        best = int(gain.argmax())
        gains[rank] = gain[best]
        worth *= (1 - ALPHA) ** covers[best]
        left[best] = 0  # it is taken and has no further gain
    return gains
