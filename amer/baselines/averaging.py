"""One vector in place of m: their normalised mean."""

from __future__ import annotations

import numpy as np

DIRECTIONLESS = 1e-6  # below this length of a mean of unit vectors, what is left is rounding


def average(query_embeddings: np.ndarray) -> np.ndarray:
    """The mean of each question's query vectors, at unit length.

    It ranks documents as the sum of the inner products with all query vectors does, which is what MaxSim comes to with
    one vector a document.

    Args:
        query_embeddings: `(q, m, dim)` of unit length.

    Returns:
        `(q, 1, dim)` float32.

    Raises:
        ValueError: another shape, values that are not finite, or vectors whose mean is zero; names the question.
    """
    query_embeddings = np.asarray(query_embeddings, dtype=np.float32)
    if query_embeddings.ndim != 3 or not query_embeddings.shape[1]:
        raise ValueError(f"query_embeddings must be (q, m, dim), m > 0, got {query_embeddings.shape}")
    return normalised_means(query_embeddings.mean(axis=1, keepdims=True))


def normalised_means(means: np.ndarray) -> np.ndarray:
    """Means of unit vectors `(q, m, dim)` at unit length, float32; ValueError naming the first without a direction."""
    lengths = np.linalg.norm(means, axis=-1, keepdims=True)
    bad = np.argwhere(~(np.isfinite(lengths) & (lengths > DIRECTIONLESS)))
    if len(bad):
        raise ValueError(
            f"question number {bad[0][0]}: the mean of its vectors has length {lengths[tuple(bad[0])]:.3g} and no "
            "direction to search in: they cancel out, or are not finite"
        )
    return (means / lengths).astype(np.float32)
