"""Project vectors on a plane, for a map."""

from __future__ import annotations

import numpy as np


def plane(vectors: np.ndarray) -> np.ndarray:
    """Project vectors on their first two principal components.

    Args:
        vectors: `(n, dim)`.

    Returns:
        `(n, 2)` from -1 to 1, both axes in the same scale. The signs are fixed, so equal vectors give equal maps: on
        each axis the value farthest from 0 is positive.
    """
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(centred), 2))
    found[:, : min(2, len(axes))] = centred @ axes[:2].T
    farthest = found[np.abs(found).argmax(axis=0), [0, 1]]
    found *= np.where(farthest < 0, -1, 1)
    return found / max(float(np.abs(found).max()), np.finfo(np.float64).tiny)
