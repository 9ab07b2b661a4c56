"""Search with FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from amer.retrieval.index.base import flat_queries
from amer.retrieval.index.exact import READ_ROWS
from amer.retrieval.store import DocumentStore


class FaissIndex:
    """A flat inner-product index of FAISS, in memory: `4 * n * dim` bytes."""

    def __init__(self, store: DocumentStore) -> None:
        """Copy the store's vectors into the index.

        Raises:
            ImportError: FAISS is not installed.
        """
        self.store = store
        self._index: Any = _import_faiss().IndexFlatIP(store.dim)
        for _, block in store.blocks(READ_ROWS):
            self._index.add(block.astype(np.float32, copy=False))

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.search`."""
        shape, vectors = flat_queries(query_embeddings, self.store.dim, k)
        scores, rows = self._index.search(vectors.numpy(), k)
        scores[rows < 0] = -np.inf  # FAISS pads with the lowest float
        return rows.reshape(shape), scores.reshape(shape)


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("FaissIndex needs FAISS: install faiss-cpu or faiss-gpu, or use ExactIndex") from error
    return faiss
