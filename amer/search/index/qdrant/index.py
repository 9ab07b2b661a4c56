"""Search in Qdrant: on a server, in its cloud, or in this process."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from amer.corpus.filters import Filter
from amer.corpus.store import DocumentStore
from amer.extras import needs_extra
from amer.search.index.base import flat_queries
from amer.search.index.exact import complete_lists
from amer.search.index.qdrant.filters import translated

with needs_extra("qdrant", "QdrantIndex"):
    from qdrant_client import QdrantClient, models

STORE_KEY = "amer.store"  # metadata of the collection: identity of the store it was built from
BATCH_ROWS = 512  # per upload
MOST_VECTORS = 256  # per call


class QdrantIndex:
    """A store in a Qdrant collection. The collection holds embeddings and metadata; texts stay in the store.

    index = QdrantIndex.build(store, QdrantClient("http://localhost:6333"), "passages")
    searcher = Searcher.from_pretrained(model, store, index)

    All query vectors of a call go in one batch. Qdrant cannot order strings or integers beyond 2**53, so filters that
    do are refused.
    """

    def __init__(self, store: DocumentStore, client: QdrantClient, collection: str) -> None:
        """Use `QdrantIndex.build` or `QdrantIndex.open`, which check the collection."""
        self.store = store
        self._client = client
        self._collection = collection

    @classmethod
    def build(
        cls, store: DocumentStore, client: QdrantClient, collection: str, show_progress_bar: bool = True
    ) -> QdrantIndex:
        """Fill a collection. After an interruption, call it again.

        Args:
            store: The store to search.
            client: Client of a server, or of a folder: `QdrantClient(path=...)`.
            collection: Name of the collection. Created if it does not exist.
            show_progress_bar: Show the progress of the upload.

        Raises:
            ValueError: The collection belongs to another store.
        """
        if not client.collection_exists(collection):
            vectors = models.VectorParams(size=store.dim, distance=models.Distance.DOT)
            client.create_collection(collection, vectors, metadata={STORE_KEY: store.identity})
        _check_store(store, client, collection)
        bar = tqdm(total=len(store), unit="documents", disable=not show_progress_bar)
        for first, block in store.blocks(BATCH_ROWS):
            rows = range(first, first + len(block))
            payloads = [{name: found[name] for name in store.metadata} for found in store.documents(rows)]
            batch = models.Batch(ids=list(rows), vectors=block.astype(np.float32).tolist(), payloads=payloads)
            client.upsert(collection, batch, wait=True)
            bar.update(len(block))
        bar.close()
        return cls.open(store, client, collection)

    @classmethod
    def open(cls, store: DocumentStore, client: QdrantClient, collection: str) -> QdrantIndex:
        """Open a finished collection.

        Raises:
            ValueError: The collection does not exist, belongs to another store, or is not finished.
        """
        if not client.collection_exists(collection):
            raise ValueError(f"Qdrant has no collection {collection!r}: build it with QdrantIndex.build")
        _check_store(store, client, collection)
        count = client.count(collection).count
        if count != len(store):
            raise ValueError(
                f"the collection {collection!r} holds {count} of {len(store)} documents: run QdrantIndex.build again"
            )
        return cls(store, client, collection)

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search as in `Index.search`. Equal scores are in ascending order of rows."""
        shape, queries = flat_queries(query_embeddings, self.store.dim, k)
        allowed = None if filter is None else translated(Filter(filter, self.store.metadata))
        rows: np.ndarray = np.full((len(queries), k), -1, dtype=np.int64)
        scores: np.ndarray = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for start in range(0, len(queries), MOST_VECTORS):
            vectors = queries[start : start + MOST_VECTORS].tolist()
            requests = [models.QueryRequest(query=vector, filter=allowed, limit=k) for vector in vectors]
            for place, found in enumerate(self._client.query_batch_points(self._collection, requests), start):
                rows[place, : len(found.points)] = [point.id for point in found.points]
                scores[place, : len(found.points)] = [point.score for point in found.points]
        complete_lists(self.store, queries, k, filter, rows, scores)
        order = np.lexsort((rows, -scores))
        rows, scores = (np.take_along_axis(lists, order, axis=1) for lists in (rows, scores))
        return rows.reshape(shape), scores.reshape(shape)


def _check_store(store: DocumentStore, client: QdrantClient, collection: str) -> None:
    written = (client.get_collection(collection).config.metadata or {}).get(STORE_KEY)
    if written != store.identity:
        raise ValueError(
            f"the collection {collection!r} was not built from the store {store.path} as it is now: build under "
            "another name, or delete the collection first"
        )
