"""What every index promises, and what every index refuses."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from amer.corpus.store import DocumentStore


class Index(Protocol):
    """What a searcher asks of an index; safe to call from several threads.

    Attributes:
        store: what is searched.
    """

    store: DocumentStore

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest documents of every query vector; all vectors of a call are searched together.

        Args:
            query_embeddings: `(q, m, dim)`.
            k: length of each list; row -1 and score -inf fill up where there are fewer documents.
            filter: only documents whose metadata fulfil this expression, see `amer.corpus.filters`.

        Returns:
            rows of the store `(q, m, k)` int64 and scores `(q, m, k)` float32, best first.

        Raises:
            ValueError: another shape or dim, NaN or infinite values, k < 1, a filter that does not fit the store.
        """


def flat_queries(
    query_embeddings: np.ndarray | torch.Tensor, dim: int, k: int, dtype: torch.dtype = torch.float32
) -> tuple[tuple[int, int, int], torch.Tensor]:
    """The shape of the answer and the contiguous `(q * m, dim)` vectors in the precision they are searched with.

    Raises:
        ValueError: another shape or dim, NaN or infinite values, k < 1.
    """
    queries = torch.as_tensor(query_embeddings).detach().to("cpu", dtype)
    if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != dim:
        raise ValueError(f"query_embeddings must be (q, m, {dim}) with m at least 1, got {tuple(queries.shape)}")
    if not torch.isfinite(queries).all():
        raise ValueError(
            f"query_embeddings hold NaN, infinite values or values beyond {dtype}: the model that made them is broken"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (queries.shape[0], queries.shape[1], k), queries.reshape(-1, dim).contiguous()
