"""Distances between the targets of a query, and between those of two random queries (paper §3, A.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist, pdist

DISTANCES = {"euclidean": "Euclidean", "cosine": "cosine"}
"""Kinds of distance, and their names."""

SAME_QUERY, RANDOM_QUERIES = "same_query", "random_queries"


def mean_distances(euclidean: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The mean of each query's Euclidean distances, and of the cosine distances that they stand for.

    Args:
        euclidean: per query the distances between pairs of unit vectors, an array of any shape; it may be empty.

    Returns:
        `{"euclidean": (q,), "cosine": (q,)}` float64; 0 where there is no pair. Between unit vectors `|a - b|^2 / 2`
        is 1 - cosine, exactly 0 for equal ones.
    """
    return {
        "euclidean": np.array([pairs.mean() if pairs.size else 0.0 for pairs in euclidean]),
        "cosine": np.array([(pairs**2).mean() / 2 if pairs.size else 0.0 for pairs in euclidean]),
    }


def compare_with_random_queries(targets: Sequence[np.ndarray] | np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Mean distance between two targets of the same query, and between targets of two random queries.

    A query counts once, however many targets it has.

    Args:
        targets: per query `(m_i, dim)` unit vectors, m_i at least 2; two queries or more.
        seed: pairs every query with another one.

    Returns:
        `{"euclidean": {"same_query": float, "random_queries": float}, "cosine": {...}}`.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)
    pairs = {  # a loop over queries: a matrix product of a few vectors is faster than any gathering
        SAME_QUERY: mean_distances([pdist(vectors) for vectors in targets]),
        RANDOM_QUERIES: mean_distances([cdist(targets[i], targets[j]) for i, j in enumerate(partner)]),
    }
    return {kind: {name: float(means[kind].mean()) for name, means in pairs.items()} for kind in DISTANCES}
