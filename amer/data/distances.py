"""Distances between targets of the same query, and between targets of two random queries (paper §3, A.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist, pdist

DISTANCES = {"euclidean": "Euclidean", "cosine": "cosine"}
"""Kinds of distance, and their names."""

SAME_QUERY, RANDOM_QUERIES = "same_query", "random_queries"


def mean_distances(euclidean: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Mean Euclidean and cosine distance of each query.

    Args:
        euclidean: For each query, the distances between pairs of unit vectors, an array of any shape; it may be empty.

    Returns:
        `{"euclidean": (q,), "cosine": (q,)}` float64; 0 for a query without pairs. The cosine distance 1 - cosine of
        unit vectors is computed as `|a - b|^2 / 2`, which is exactly 0 for equal vectors.
    """
    return {
        "euclidean": np.array([pairs.mean() if pairs.size else 0.0 for pairs in euclidean]),
        "cosine": np.array([(pairs**2).mean() / 2 if pairs.size else 0.0 for pairs in euclidean]),
    }


def compare_with_random_queries(targets: Sequence[np.ndarray] | np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """Mean distance between two targets of the same query, and between targets of two random queries.

    All queries have the same weight, whatever their number of targets.

    Args:
        targets: For each query, `(m_i, dim)` unit vectors with m_i at least 2; at least two queries.
        seed: Seed of the random pairs of queries.

    Returns:
        `{"euclidean": {"same_query": float, "random_queries": float}, "cosine": {...}}`.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)
    pairs = {  # a loop over queries: small matrix products are faster than gathering pairs
        SAME_QUERY: mean_distances([pdist(vectors) for vectors in targets]),
        RANDOM_QUERIES: mean_distances([cdist(targets[i], targets[j]) for i, j in enumerate(partner)]),
    }
    return {kind: {name: float(means[kind].mean()) for name, means in pairs.items()} for kind in DISTANCES}
