"""Recall@k and MRecall@k for targets that are clusters of documents (paper §2).

Both are computed from one array: the rank of the first document that covers each target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Targets = Sequence[Sequence[Sequence[int]]]
"""The targets of each query, each the store rows of the documents that cover it."""

NOT_FOUND = np.iinfo(np.int64).max  # the rank of a target that no retrieved document covers
NO_TARGET = -1  # padding for queries with fewer targets
NO_DOCUMENT = -2  # padding of short clusters; it must differ from -1, the padding of the retrieved rows
BLOCK_VALUES = 2**24  # comparisons in memory at a time, one byte each


def mrecall_at_k(retrieved: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """MRecall@k (paper §2): 1 if the top k cover all m targets, or k of them if k < m; else 0.

    Args:
        retrieved: `(q, n)` integer rows with n >= k, best first; -1 is padding and covers nothing.
        targets: The targets of each query, each a list of rows.
        k: Cut-off.

    Returns:
        `(q,)` float64 of 0 and 1.

    Raises:
        ValueError: k < 1 or k > n, the lengths differ, a query has no targets, or a target has no documents.
    """
    return mrecall_from_ranks(target_ranks(retrieved, targets, k), k)


def recall_at_k(retrieved: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    """The fraction of a query's targets covered by its top k; arguments and errors as in `mrecall_at_k`."""
    return recall_from_ranks(target_ranks(retrieved, targets, k), k)


def mrecall_from_ranks(ranks: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """MRecall@k `(q,)` from the ranks `(q, m)` of `target_ranks`; k is one cut-off, or `(q,)`, one per question."""
    found, count = _found(ranks, k)
    return (found >= np.minimum(count, k)).astype(np.float64)


def recall_from_ranks(ranks: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Recall@k `(q,)` from the ranks `(q, m)` of `target_ranks`; k as in `mrecall_from_ranks`."""
    found, count = _found(ranks, k)
    return found / count


def target_ranks(retrieved: np.ndarray, targets: Targets, depth: int) -> np.ndarray:
    """The rank, from 0, of the first document that covers each target.

    Args:
        retrieved: `(q, n)` integer rows, best first; -1 is padding.
        targets: The targets of each query, each a list of rows.
        depth: Number of rows of each list to consider.

    Returns:
        `(q, m)` int64, where m is the largest number of targets of a query. `NOT_FOUND` marks a target that no row
        covers, `NO_TARGET` pads queries with fewer targets.

    Raises:
        ValueError: See `mrecall_at_k`.
    """
    retrieved = _checked_rows(retrieved, targets, depth)[:, :depth]
    most = max(len(clusters) for clusters in targets)
    ranks = np.full((len(targets), most), NO_TARGET, dtype=np.int64)
    step = max(1, BLOCK_VALUES // (max(1, most) * depth))
    for start in range(0, len(targets), step):
        clusters = pad_targets(targets[start : start + step], start)
        ranks[start : start + step, : clusters.shape[1]] = _first_ranks(retrieved[start : start + step], clusters)
    return ranks


def pad_targets(targets: Targets, first_query: int = 0) -> np.ndarray:
    """Pad ragged targets to one array.

    Args:
        targets: The targets of each query, each a list of rows.
        first_query: Number of the first query, used in messages.

    Returns:
        `(q, m, c)` int64, where m is the largest number of targets of a query and c the size of the largest cluster;
        `NO_DOCUMENT` is the padding.

    Raises:
        ValueError: A query has no targets, or a target is not a list of rows.
    """
    most = max(len(clusters) for clusters in targets)
    largest = max((len(cluster) for clusters in targets for cluster in clusters), default=0)
    padded = np.full((len(targets), most, largest), NO_DOCUMENT, dtype=np.int64)
    for query, clusters in enumerate(targets):
        if not len(clusters):
            raise ValueError(f"query number {first_query + query} has no targets: leave it out")
        for target, cluster in enumerate(clusters):
            rows = np.asarray(cluster)
            if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu" or rows.min() < 0:
                raise ValueError(
                    f"query number {first_query + query} has the target {cluster!r}: "
                    "it must be a list of at least one store row (an integer from 0)"
                )
            padded[query, target, : rows.size] = rows
    return padded


def check_depth(k: int, available: int) -> None:
    """Raise a ValueError unless 1 <= k <= available."""
    if not 1 <= k <= available:
        raise ValueError(f"k must lie in 1..{available}, the length of the ranked lists, got {k}")


def _found(ranks: np.ndarray, k: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of targets that the top k cover, and the number of targets: both `(q,)`."""
    exists = ranks != NO_TARGET
    return (exists & (ranks < np.reshape(k, (-1, 1)))).sum(axis=1), exists.sum(axis=1)


def _first_ranks(retrieved: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Rows `(q, k)` and clusters `(q, m, c)` -> ranks `(q, m)`."""
    covers = np.zeros((*clusters.shape[:2], retrieved.shape[1]), dtype=bool)
    for documents in np.moveaxis(clusters, 2, 0):  # the loop runs over the largest cluster, not over queries
        covers |= documents[:, :, None] == retrieved[:, None, :]
    ranks = np.where(covers.any(axis=2), covers.argmax(axis=2), NOT_FOUND)
    return np.where(clusters[:, :, 0] == NO_DOCUMENT, NO_TARGET, ranks)


def _checked_rows(retrieved: np.ndarray, targets: Targets, k: int) -> np.ndarray:
    retrieved = np.asarray(retrieved)
    if retrieved.ndim != 2 or retrieved.dtype.kind not in "iu":
        raise ValueError(f"retrieved must be integer rows (q, n), got {retrieved.dtype} {retrieved.shape}")
    if len(retrieved) != len(targets) or not len(targets):
        raise ValueError(f"{len(retrieved)} ranked lists for {len(targets)} queries: give one per query, at least one")
    check_depth(k, retrieved.shape[1])
    if retrieved.min() < -1:
        raise ValueError(f"retrieved rows must be -1 (padding) or more, got {retrieved.min()}")
    return retrieved
