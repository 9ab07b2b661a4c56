"""Random baseline: m query vectors from one. It searches as often as AMER, but learns nothing."""

from __future__ import annotations

import numpy as np

from amer.corpus.shards import check_unit


def perturb(query_embeddings: np.ndarray, m: int, scale: float, seed: int) -> np.ndarray:
    """Copy each query vector m times and move every copy but the first in a random direction.

    Args:
        query_embeddings: `(q, dim)` of unit length.
        m: Number of vectors per question.
        scale: Distance that a copy is moved before it is normalised, relative to the length of the vector.
        seed: Seed of the directions.

    Returns:
        `(q, m, dim)` float32 of unit length; the first vector of each question is its original.

    Raises:
        ValueError: The shape is wrong, a vector is not of unit length, m < 1, or scale is negative or not finite.
    """
    query_embeddings = np.asarray(query_embeddings, dtype=np.float32)
    if query_embeddings.ndim != 2:
        raise ValueError(f"query_embeddings must be (q, dim), got {query_embeddings.shape}")
    if m < 1 or not 0 <= scale < np.inf:
        raise ValueError(f"m must be at least 1, and scale finite and not negative, got m={m}, scale={scale}")
    check_unit(query_embeddings, "query_embeddings")
    questions, dim = query_embeddings.shape
    directions = np.random.default_rng(seed).standard_normal((questions, m - 1, dim), dtype=np.float32)
    directions *= scale / np.linalg.norm(directions, axis=2, keepdims=True)
    own = query_embeddings[:, None]
    moved = own + directions
    moved /= np.linalg.norm(moved, axis=2, keepdims=True)
    return np.concatenate([own, moved], axis=1)
