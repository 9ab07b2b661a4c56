"""Search in Milvus: in a file by Milvus Lite, on a server, on a cluster, by the same lines."""

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

MOST_FOUND = 16_384  # what Milvus lists for a vector
MOST_VECTORS = 1_000  # of a call: even Milvus Lite, at 20 ms each, answers in less than the usual time-out
MOST_HITS = 2**22  # of an answer, 12 bytes each


class MilvusIndex:
    """A store in a collection of Milvus; built once, opened wherever the store and the server can be reached.

    The collection holds the embeddings and the metadata, so that Milvus filters; texts stay in the store. Where an
    approximate index lists fewer documents than there are, because a filter leaves few, the store is searched exactly.

    Attributes:
        store: what is searched.
        index_type: FLAT (exact), HNSW, IVF_SQ8, DISKANN, ...
        index_params: what Milvus says of the index.
        search_params: what it is searched with; by default as `default_search_params` says.
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
        """Fill a collection and index it, or go on where that broke off; several processes may do so at once.

        Args:
            store: what to search.
            uri: a file that ends in ".db" (Milvus Lite, in this process) or an address, `http://host:19530`.
            collection: its name.
            index_type: any type the server knows: HNSW by default, FLAT is exact.
            index_params: of that type; by default as `default_index_params` says.
            batch_rows: rows written at a time, at most 5,000, and fewer where they are long.
            token: "user:password" or an API key, where the server asks for one.
            timeout: seconds for every call to the server with all its repetitions.
            show_progress_bar: of the insertion and of the indexing.

        Raises:
            ImportError: pymilvus, or for a file milvus-lite, is not installed.
            OSError: the server stays away: build again, what has been inserted is kept.
            ValueError: the collection is of another store or has another index; Milvus refuses the index or a field.
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
                hint = "what has been inserted is kept: build again with the same arguments to go on"
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
        """Open a collection that has been built.

        Args:
            store: what it was built from.
            uri: where it is, see `build`.
            collection: its name.
            search_params: `{"ef": 400}` for HNSW, `{"nprobe": 64}` for IVF; see `default_search_params`.
            token: as in `build`.
            timeout: as in `build`.

        Raises:
            ImportError: pymilvus, or for a file milvus-lite, is not installed.
            OSError: the server stays away; there is no such file, or another process uses it.
            ValueError: there is no such collection, it is of another store, or its insertion has not finished.
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
                    "MilvusIndex.build again with the same arguments, it goes on where it stopped"
                )
            return cls(store, target, search_params)

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.search`; of equal scores the lower row first.

        Raises:
            OSError: the server does not answer in time.
            ValueError: as `Index.search`; k beyond the 16,384 that Milvus lists.
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
        """Close the connection; a file stays this process's own until it ends."""
        self._collection.connection.close()

    def _listed(
        self, vectors: np.ndarray, k: int, expression: str, questions_of: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What Milvus lists for `(n, dim)` vectors, `(n, k)` rows and scores; those of a question go together."""
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
    """A collection whose connection is closed if what is done with it fails."""
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
