"""Search in Milvus with the same code for a file (Milvus Lite), a server or a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amer.corpus.filters import Filter
from amer.corpus.store import DocumentStore
from amer.search.index.base import flat_queries
from amer.search.index.exact import complete_lists
from amer.search.index.milvus.collection import MilvusCollection, longest_strings
from amer.search.index.milvus.connection import MilvusConnection
from amer.search.index.milvus.loading import MOST_ROWS, fill, rows_of_a_batch, wait_for_index
from amer.search.index.milvus.parameters import check_type, default_index_params, default_search_params

MOST_FOUND = 16_384  # entities that Milvus lists for one vector, at most
MOST_VECTORS = 1_000  # per call: Milvus Lite needs 20 ms for each, so it answers within the default time-out
MOST_HITS = 2**22  # per answer, 12 bytes each


class MilvusIndex:
    """A store in a Milvus collection. Build it once, then open it wherever the store and the server are reachable.

    The collection holds the embeddings and the metadata, and Milvus applies the filters. Texts stay in the store. If
    the index lists fewer documents than exist, as after a strict filter, the store is searched exactly.

    Attributes:
        store: The store that the index searches.
        index_type: Such as FLAT (exact), HNSW, IVF_SQ8 or DISKANN.
        index_params: Description of the index from Milvus.
        search_params: Search parameters. None: those of `default_search_params`.
    """

    def __init__(
        self, store: DocumentStore, collection: MilvusCollection, search_params: Mapping[str, Any] | None = None
    ) -> None:
        """Use `MilvusIndex.build` or `MilvusIndex.open`, which check the collection."""
        self.store = store
        self.search_params = search_params
        self._collection = collection
        self.index_params: dict[str, Any] = collection.index()
        self.index_type: str = self.index_params["index_type"]

    @classmethod
    def build(
        cls,
        store: DocumentStore,
        uri: str,
        collection: str,
        index_type: str = "HNSW",
        index_params: Mapping[str, Any] | None = None,
        batch_rows: int = MOST_ROWS,
        token: str = "",
        timeout: float = 60.0,
        show_progress_bar: bool = True,
    ) -> MilvusIndex:
        """Fill and index a collection, or resume an interrupted build. Several processes may build at once.

        Args:
            store: The store to search.
            uri: A file that ends in ".db" (Milvus Lite, in this process) or an address such as `http://host:19530`.
            collection: Name of the collection.
            index_type: Any index type that the server supports. FLAT is exact.
            index_params: Parameters of the index type. Default: those of `default_index_params`.
            batch_rows: Rows to write at a time: at most 5,000, and fewer if the rows are large.
            token: "user:password" or an API key, if the server requires one.
            timeout: Seconds that each call to the server may take, including retries.
            show_progress_bar: Show the progress of insertion and indexing.

        Raises:
            ImportError: pymilvus or, for a file, milvus-lite is not installed.
            OSError: The server is unavailable. Inserted rows are kept: build again to resume.
            ValueError: The collection belongs to another store or has another index, or Milvus rejects the index or a
                field.
        """
        longest = longest_strings(store)
        batch_rows = rows_of_a_batch(store, longest, batch_rows)
        check_type(index_type, uri)
        with _connected(uri, token, timeout, collection) as target:
            target.create(store, longest)
            target.check_store(store)
            params = default_index_params(index_type, len(store)) if index_params is None else index_params
            target.create_index(index_type, params)
            try:
                _finish(target, store, batch_rows, show_progress_bar)
            except OSError as error:
                hint = "inserted rows are kept: build again with the same arguments to resume"
                raise type(error)(f"{error}; {hint}") from error
            return cls(store, target)

    @classmethod
    def open(
        cls,
        store: DocumentStore,
        uri: str,
        collection: str,
        search_params: Mapping[str, Any] | None = None,
        token: str = "",
        timeout: float = 60.0,
    ) -> MilvusIndex:
        """Open a finished collection.

        Args:
            store: The store that the collection was built from.
            uri: Location of the collection, see `build`.
            collection: Name of the collection.
            search_params: Such as `{"ef": 400}` for HNSW or `{"nprobe": 64}` for IVF; see `default_search_params`.
            token: As in `build`.
            timeout: As in `build`.

        Raises:
            ImportError: pymilvus or, for a file, milvus-lite is not installed.
            OSError: The server is unavailable, the file does not exist, or another process uses it.
            ValueError: The collection does not exist, belongs to another store, or is not finished.
        """
        if "://" not in uri and uri.endswith(".db") and not Path(uri).exists():
            raise FileNotFoundError(f"{uri} does not exist: build the index there with MilvusIndex.build")
        with _connected(uri, token, timeout, collection) as target:
            if not target.exists():
                raise ValueError(f"{uri} has no collection {collection!r}: build it with MilvusIndex.build")
            target.check_store(store)
            if not target.finished(len(store)):
                raise ValueError(
                    f"the insertion into the collection {collection!r} of {uri} has not finished: run "
                    "MilvusIndex.build again with the same arguments to resume"
                )
            return cls(store, target, search_params)

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search as in `Index.search`. Equal scores are in ascending order of rows.

        Raises:
            OSError: The server does not answer in time.
            ValueError: As `Index.search`, or k is above 16,384, the limit of Milvus.
        """
        shape, queries = flat_queries(query_embeddings, self.store.dim, k)
        if k > MOST_FOUND:
            raise ValueError(f"k must be at most {MOST_FOUND} in Milvus, got {k}: ask for fewer, or search with FAISS")
        expression = "" if filter is None else Filter(filter, self.store.metadata).for_milvus()
        rows, scores = self._listed(queries.numpy(), k, expression, questions_of=shape[1])
        complete_lists(self.store, queries, k, filter, rows, scores)
        order = np.lexsort((rows, -scores))
        rows, scores = (np.take_along_axis(lists, order, axis=1) for lists in (rows, scores))
        return rows.reshape(shape), scores.reshape(shape)

    def close(self) -> None:
        """Close the connection. A Milvus Lite file stays locked until this process ends."""
        self._collection.connection.close()

    def _listed(
        self, vectors: np.ndarray, k: int, expression: str, questions_of: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Milvus' lists for `(n, dim)` vectors: `(n, k)` rows and scores. A question's vectors share a call."""
        params = self.search_params
        if params is None:
            params = default_search_params(self.index_type, self.index_params, k)
        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        most = min(MOST_VECTORS, max(1, MOST_HITS // k))
        step = most // questions_of * questions_of or most
        for start in range(0, len(vectors), step):
            found = self._collection.search(vectors[start : start + step], k, params, expression)
            for place, hits in enumerate(found, start):
                rows[place, : len(hits.ids)] = hits.ids
                scores[place, : len(hits.ids)] = hits.distances
        return rows, scores


@contextmanager
def _connected(uri: str, token: str, timeout: float, name: str) -> Iterator[MilvusCollection]:
    """Open a collection, and close its connection if the body fails."""
    connection = MilvusConnection(uri, token, timeout)
    try:
        yield MilvusCollection(connection, name)
    except BaseException:
        connection.close()
        raise


def _finish(collection: MilvusCollection, store: DocumentStore, batch_rows: int, show_progress_bar: bool) -> None:
    collection.load()
    if not collection.finished(len(store)):
        fill(collection, store, batch_rows, show_progress_bar)
        collection.finish()
    wait_for_index(collection, len(store), show_progress_bar)
