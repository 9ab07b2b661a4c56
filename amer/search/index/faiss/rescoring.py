"""Re-score candidates with exact inner products from the store's vectors."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from amer.corpus.store import DocumentStore

MOST_GATHERED = 2**13  # vectors at a time; they fit the processor's caches
MOST_MAPPED = 256  # shards kept mapped; each holds a file descriptor


class Rescorer:
    """Finds the best candidates. Between searches it keeps shards mapped, but no vectors in memory."""

    def __init__(self, store: DocumentStore) -> None:
        """Remember the store. Reads nothing yet."""
        self._store = store
        self._shard = lru_cache(MOST_MAPPED)(store.shard)

    def best(self, queries: torch.Tensor, candidates: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the k greatest inner products.

        Args:
            queries: `(n, dim)` float32.
            candidates: `(n, c)` int64 rows of the store, without repeats in a list; -1 is padding.
            k: Length of the lists, at most c.

        Returns:
            Scores `(n, k)` float32 and rows `(n, k)`, best first. Equal scores are in ascending order of rows.
        """
        scores = torch.empty(candidates.shape)
        step = max(1, MOST_GATHERED // candidates.shape[1])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            vectors = torch.from_numpy(self._gather(candidates[part].clamp(min=0).flatten().numpy()))
            vectors = vectors.view(*candidates[part].shape, -1).float()
            torch.bmm(vectors, queries[part, :, None], out=scores[part, :, None])
        scores.masked_fill_(candidates < 0, -torch.inf)
        scores, order = scores.topk(k, dim=1, sorted=False)
        rows, order = candidates.gather(1, order).sort(dim=1)
        scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
        return scores, rows.gather(1, order)

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """Gather `(n, dim)` vectors of `(n,)` rows in the store's precision. Reads each shard once, in order."""
        order = np.argsort(rows)
        ordered = rows[order]
        vectors = np.empty((len(rows), self._store.dim), dtype=self._store.dtype)
        shards, starts = np.unique(ordered // self._store.shard_size, return_index=True)
        for index, places in zip(shards.tolist(), np.split(order, starts[1:]), strict=True):
            vectors[places] = self._shard(index)[rows[places] - index * self._store.shard_size]
        return vectors
