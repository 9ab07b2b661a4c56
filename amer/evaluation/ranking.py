"""The usual measures of a ranked list, beside MRecall: nDCG, MAP, MRR, precision and alpha-nDCG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amer.evaluation.recall import Targets, check_depth, pad_targets
from amer.extras import import_extra

ALPHA = 0.5  # what a target is worth less each time it is covered again
TREC_NAMES = {"ndcg": "ndcg_cut", "map": "map_cut", "precision": "P"}


def ranking_metrics(rows: np.ndarray, targets: Targets, ks: Sequence[int] = (10, 100)) -> dict[str, np.ndarray]:
    """The measures of TREC at each cut-off; a document is relevant if it covers any of the targets.

    nDCG, MAP, MRR and precision are pytrec_eval's: MAP@k divides by all relevant documents, also where they are more
    than k. alpha-nDCG (Clarke et al. 2008, alpha = 0.5) is computed here, since its library, ndeval, ends at rank 20.

    Args:
        rows: `(q, n)` store rows, best first, each once, n at least the largest k; -1 is padding, at the end.
        targets: per query its targets, each a list of rows.
        ks: cut-offs.

    Returns:
        `{"ndcg@10": (q,), "map@10": (q,), "mrr@10": (q,), "precision@10": (q,), "alpha_ndcg@10": (q,), ...}`, float64.

    Raises:
        ValueError: no cut-off or one out of range, lists that are not as above, other lengths, a query without targets
            or a target without documents.
        ImportError: pytrec_eval is not installed.
    """
    rows = checked_lists(rows)
    if len(rows) != len(targets) or not len(targets):
        raise ValueError(f"{len(rows)} ranked lists for {len(targets)} queries: give one each, at least one")
    if not len(ks):
        raise ValueError("no cut-off was given: pass ks, such as (10, 100)")
    for k in ks:
        check_depth(k, rows.shape[1])
    for query, clusters in enumerate(targets):
        pad_targets([clusters], query)  # names the query whose targets cannot be used
    judged, diverse = _trec_metrics(rows, targets, ks), _alpha_ndcg(rows, targets)
    values: dict[str, np.ndarray] = {}
    for k in ks:
        values |= {f"{name}@{k}": judged[f"{trec_name}_{k}"] for name, trec_name in TREC_NAMES.items()}
        values[f"mrr@{k}"] = np.where(judged["recip_rank"] >= 1 / k, judged["recip_rank"], 0.0)
        values[f"alpha_ndcg@{k}"] = diverse[:, k - 1]
    return values


def checked_lists(rows: np.ndarray) -> np.ndarray:
    """Ranked lists as int64, or why they are none.

    Raises:
        ValueError: not integers `(q, n)`, rows below -1, a document twice in one list, padding before a document.
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
    """pytrec_eval's measures under its own names, `(q,)` each."""
    pytrec_eval = import_extra("pytrec_eval", "paper", "ranking_metrics")
    cutoffs = ",".join(map(str, ks))
    relevant = {
        str(query): {str(row): 1 for cluster in clusters for row in cluster} for query, clusters in enumerate(targets)
    }
    # trec_eval sorts by score, and equal scores by id: the rank itself, negative, keeps our order.
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
    """Which documents cover which targets: `(n, m)` of 0 and 1."""
    return np.stack([np.isin(rows, cluster) for cluster in clusters], axis=1).astype(np.float64)


def _novelty(covers: np.ndarray) -> np.ndarray:
    """The gain `(n,)` at each rank of a list `(n, m)`: a target found c times before adds (1 - alpha)^c."""
    before = np.cumsum(covers, axis=0) - covers
    return (covers * (1 - ALPHA) ** before).sum(axis=1)


def _ideal_gains(covers: np.ndarray, depth: int) -> np.ndarray:
    """Gains `(depth,)` of the ideal list, built as ndeval does it: always the document of the largest gain.

    Of equal gains the document that stands first in the store; ndeval takes the last id instead.
    """
    gains, worth, left = np.zeros(depth), np.ones(covers.shape[1]), covers.copy()
    for rank in range(min(depth, len(covers))):
        gain = left @ worth
        best = int(gain.argmax())
        gains[rank] = gain[best]
        worth *= (1 - ALPHA) ** covers[best]
        left[best] = 0  # taken: it gains nothing again
    return gains
