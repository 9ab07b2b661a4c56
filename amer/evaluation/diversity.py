"""The diversity of a query's targets, and subsets of queries by diversity (paper §3, §6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import pdist

from amer.data.distances import DISTANCES, mean_distances
from amer.evaluation.recall import Targets

if TYPE_CHECKING:
    from amer.corpus.store import DocumentStore

BLOCK_QUERIES = 4_096  # queries whose target vectors are in memory at a time


def target_similarity(targets: Targets, store: DocumentStore) -> np.ndarray:
    """Mean cosine over all pairs of a query's targets, each represented by the first document of its cluster.

    Args:
        targets: The targets of each query, each a list of store rows.
        store: The store of the document embeddings.

    Returns:
        `(q,)` float64; 1.0 for a query with a single target, which has no diversity.

    Raises:
        ValueError: There is no query, a query has no targets, or a target has no documents.
    """
    return np.concatenate([_similarities(*block) for block in _blocks(targets, store)])


def target_distances(targets: Targets, store: DocumentStore) -> dict[str, np.ndarray]:
    """Mean distance over all pairs of a query's targets; arguments and errors as in `target_similarity` (paper §3).

    Returns:
        `{"euclidean": (q,), "cosine": (q,)}` float64, between unit vectors; 0 for a query with a single target. The
        cosine distance is 1 - cosine, so its mean is `1 - target_similarity`.
    """
    blocks = [
        mean_distances([pdist(vectors) for vectors in np.split(unit, np.cumsum(counts)[:-1])])
        for unit, counts in _blocks(targets, store)
    ]
    return {kind: np.concatenate([block[kind] for block in blocks]) for kind in DISTANCES}


def low_similarity_third(similarity: np.ndarray) -> np.ndarray:
    """The third of the queries with the least similar targets, rounded up (the low similarity set of paper §6.1).

    Args:
        similarity: `(q,)` from `target_similarity`. Among equal values, the earlier query counts as less similar.

    Returns:
        `(q,)` bool.
    """
    return _ordinals(similarity) * 3 < len(similarity)


def similarity_quartiles(similarity: np.ndarray) -> np.ndarray:
    """The quarter of each query by target similarity, `(q,)` int64: 0 most diverse, 3 least (paper Figure 1)."""
    return _ordinals(similarity) * 4 // len(similarity)


def _blocks(targets: Targets, store: DocumentStore) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of queries: unit vectors `(n, dim)` float64 of all targets, and the counts per query `(q,)`."""
    for query, clusters in enumerate(targets):
        if not len(clusters) or not all(map(len, clusters)):
            raise ValueError(
                f"query number {query} has the targets {clusters!r}: give at least one target, and at least one "
                "document per target"
            )
    if not len(targets):
        raise ValueError("no query was given: give at least one")
    for start in range(0, len(targets), BLOCK_QUERIES):
        block = targets[start : start + BLOCK_QUERIES]
        rows = np.array([cluster[0] for clusters in block for cluster in clusters], dtype=np.int64)
        vectors = store.vectors(rows).astype(np.float64)
        vectors /= np.linalg.norm(
            vectors, axis=1, keepdims=True
        )  # vectors in half precision are not exactly of unit length
        yield vectors, np.array([len(clusters) for clusters in block])


def _similarities(unit: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean cosine per query. The sum over all ordered pairs of unit vectors is `|sum v|^2 - m`."""
    sums = np.add.reduceat(unit, np.cumsum(counts) - counts, axis=0)
    pairs = np.maximum(counts * (counts - 1), 1)
    return np.where(counts == 1, 1.0, ((sums**2).sum(axis=1) - counts) / pairs)


def _ordinals(similarity: np.ndarray) -> np.ndarray:
    """The position of each query in ascending order of similarity, `(q,)` int64."""
    similarity = np.asarray(similarity)
    if similarity.ndim != 1 or not len(similarity) or not np.isfinite(similarity).all():
        raise ValueError(
            f"similarity must be finite, of shape (q,), with q at least 1, got {similarity.dtype} {similarity.shape}"
        )
    ordinals = np.empty(len(similarity), dtype=np.int64)
    ordinals[np.argsort(similarity, kind="stable")] = np.arange(len(similarity))
    return ordinals
