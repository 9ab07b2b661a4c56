"""The interface of every index, and the checks of its arguments."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from amer.corpus.store import DocumentStore


class Index(Protocol):
    """The index interface that a searcher uses. Thread-safe.

    Attributes:
        store: The store that the index searches.
    """

    store: DocumentStore

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest documents of every query vector, all vectors in one pass.

        Args:
            query_embeddings: `(q, m, dim)`.
            k: Length of each list. Lists with fewer documents are padded with row -1 and score -inf.
            filter: Condition on the metadata, see `amer.corpus.filters`.

        Returns:
            Rows of the store `(q, m, k)` int64 and scores `(q, m, k)` float32, best first.

        Raises:
            ValueError: The shape or dimension is wrong, a value is NaN or infinite, k < 1, or the filter does not fit
                the store.
        """


def flat_queries(
    query_embeddings: np.ndarray | torch.Tensor, dim: int, k: int, dtype: torch.dtype = torch.float32
) -> tuple[tuple[int, int, int], torch.Tensor]:
    """Return the shape of the result and the query vectors as a contiguous `(q * m, dim)` tensor in `dtype`.

    Raises:
        ValueError: The shape or dimension is wrong, a value is NaN or infinite, or k < 1.
    """
    queries = torch.as_tensor(query_embeddings).detach().to("cpu", dtype)
    if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != dim:
        raise ValueError(f"query_embeddings must be (q, m, {dim}) with m at least 1, got {tuple(queries.shape)}")
    if not torch.isfinite(queries).all():
        raise ValueError(
            f"query_embeddings hold NaN, infinite values or values beyond {dtype}: check the model that made them"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (queries.shape[0], queries.shape[1], k), queries.reshape(-1, dim).contiguous()
