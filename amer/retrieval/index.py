"""Search a document store by inner product: exactly in torch, or with a flat FAISS index."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from amer.retrieval.store import DocumentStore

BLOCK_ROWS = 65_536  # store rows in one matrix product
BLOCK_SCORES = 2**25  # inner products held at a time: 128 MiB of float32


class Index(Protocol):
    """What a searcher asks of an index."""

    store: DocumentStore

    def search(self, query_embeddings: np.ndarray | torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(q, m, dim)` -> rows `(q, m, k)` int64 and scores `(q, m, k)` float32, best first."""


class ExactIndex:
    """Exact search in torch; reads the memory-mapped store block by block at every search and keeps nothing of it."""

    def __init__(self, store: DocumentStore, device: str | torch.device = "cpu") -> None:
        """Args: the store, and the device of the matrix products."""
        self.store = store
        self.device = torch.device(device)

    def search(self, query_embeddings: np.ndarray | torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest documents of every query vector; all vectors of a call share each pass over the store.

        Args:
            query_embeddings: `(q, m, dim)`.
            k: length of each list; where the store has fewer documents, row -1 and score -inf fill up.

        Returns:
            rows `(q, m, k)` int64 and scores `(q, m, k)` float32, best first.

        Raises:
            ValueError: another shape or dim, NaN or infinite values, k < 1.
        """
        shape, vectors = _flat_queries(query_embeddings, self.store.dim, k)
        queries = torch.from_numpy(vectors).to(self.device)
        scores = torch.full((len(queries), k), -torch.inf, device=self.device)
        rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=self.device)
        for first_row, block in self.store.blocks(_block_rows(len(queries))):
            found = queries @ torch.from_numpy(block).to(self.device).T
            block_scores, block_rows = found.topk(min(k, len(block)), dim=1)
            # Earlier rows stand in front and the sort is stable, so that of equal scores the lower block comes first.
            merged = torch.cat([scores, block_scores], dim=1)
            scores, order = merged.sort(dim=1, descending=True, stable=True)
            scores, order = scores[:, :k], order[:, :k]
            rows = torch.cat([rows, block_rows + first_row], dim=1).gather(1, order)
        return rows.cpu().numpy().reshape(shape), scores.cpu().numpy().reshape(shape)


class FaissIndex:
    """A flat inner-product index of FAISS, in memory: `4 * n * dim` bytes."""

    def __init__(self, store: DocumentStore) -> None:
        """Copy the store's vectors into the index.

        Raises:
            ImportError: FAISS is not installed.
        """
        self.store = store
        self._index: Any = _import_faiss().IndexFlatIP(store.dim)
        for _, block in store.blocks(BLOCK_ROWS):
            self._index.add(block)

    def search(self, query_embeddings: np.ndarray | torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactIndex.search`."""
        shape, vectors = _flat_queries(query_embeddings, self.store.dim, k)
        scores, rows = self._index.search(vectors, k)
        scores[rows < 0] = -np.inf  # FAISS pads with the lowest float
        return rows.reshape(shape), scores.reshape(shape)


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("FaissIndex needs FAISS: install faiss-cpu or faiss-gpu, or use ExactIndex") from error
    return faiss


def _block_rows(queries: int) -> int:
    """Rows of the store to score at a time, so that the scores of all queries fit the memory set aside."""
    return max(1, min(BLOCK_ROWS, BLOCK_SCORES // max(1, queries)))


def _flat_queries(
    query_embeddings: np.ndarray | torch.Tensor, dim: int, k: int
) -> tuple[tuple[int, int, int], np.ndarray]:
    """The shape of the answer and the contiguous `(q * m, dim)` float32 vectors."""
    queries = torch.as_tensor(query_embeddings).detach().to("cpu", torch.float32)
    if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != dim:
        raise ValueError(f"query_embeddings must be (q, m, {dim}) with m at least 1, got {tuple(queries.shape)}")
    if not torch.isfinite(queries).all():
        raise ValueError("query_embeddings hold NaN or infinite values: the model that made them is broken")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (queries.shape[0], queries.shape[1], k), queries.reshape(-1, dim).contiguous().numpy()
