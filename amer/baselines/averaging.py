"""A baseline that replaces the m query vectors by their normalised mean."""

from __future__ import annotations

import numpy as np

DIRECTIONLESS = 1e-6  # a mean of unit vectors that is shorter than this is only rounding error


def average(query_embeddings: np.ndarray) -> np.ndarray:
    """The mean of each question's query vectors, normalised to unit length.

    It ranks documents by the sum of their inner products with all query vectors, as MaxSim does with one vector per
    document.

    Args:
        query_embeddings: `(q, m, dim)` of unit length.

    Returns:
        `(q, 1, dim)` float32.

    Raises:
        ValueError: The shape is wrong, a value is not finite, or a mean is zero; the message names the question.
    """
    query_embeddings = np.asarray(query_embeddings, dtype=np.float32)
    if query_embeddings.ndim != 3 or not query_embeddings.shape[1]:
        raise ValueError(f"query_embeddings must be (q, m, dim), m > 0, got {query_embeddings.shape}")
    return normalised_means(query_embeddings.mean(axis=1, keepdims=True))


def normalised_means(means: np.ndarray) -> np.ndarray:
    """Normalise means of unit vectors `(q, m, dim)`, to float32; a ValueError names the first mean that is zero."""
    lengths = np.linalg.norm(means, axis=-1, keepdims=True)
    bad = np.argwhere(~(np.isfinite(lengths) & (lengths > DIRECTIONLESS)))
    if len(bad):
        raise ValueError(
            f"question number {bad[0][0]}: the mean of its vectors has length {lengths[tuple(bad[0])]:.3g}, so it "
            "cannot be normalised: the vectors cancel out, or are not finite"
        )
    return (means / lengths).astype(np.float32)
