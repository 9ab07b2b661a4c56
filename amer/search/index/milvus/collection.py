"""One Milvus collection: its fields, its contents, and the store it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amer.corpus.store import DOCUMENTS_FILE, DocumentStore
from amer.files import parquet_batches
from amer.search.index.milvus.connection import MilvusConnection

LONGEST_STRING = 65_535  # bytes; limit of Milvus
STORE_PROPERTY = "amer.store"  # property of the collection: JSON about the store it was built from
FINISHED_SUFFIX = "_finished"  # of the alias that marks a collection after all its rows were verified


class MilvusCollection:
    """A named collection on a connection. All calls are idempotent, so they can be retried after a lost answer.

    The primary key `row` is a document's row in the store, and `vector` is its embedding. Each metadata column of the
    store is a field with the same name. Texts stay in the store.

    Attributes:
        connection: Connection to the server.
        name: Name of the collection.
    """

    def __init__(self, connection: MilvusConnection, name: str) -> None:
        """Refer to a collection, which need not exist yet."""
        self.connection = connection
        self.name = name

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return self._call("look for", lambda client, s: client.has_collection(self.name, timeout=s))

    def check_store(self, store: DocumentStore) -> None:
        """Raise ValueError if the collection was built from another store."""
        described = self._call("read", lambda client, s: client.describe_collection(self.name, timeout=s))
        written = described["properties"].get(STORE_PROPERTY)
        if written is None or json.loads(written)["identity"] != store.identity:
            origin = "" if written is None else f" It was built with the encoder {json.loads(written)['encoder']}."
            raise ValueError(
                f"the collection {self.name!r} of {self.connection.uri} was not built from {store.path} as it is now, "
                f"encoded by {store.encoder['name']}.{origin} Build under another name, or drop the collection first"
            )

    def finished(self, count: int) -> bool:
        """Return whether the collection is marked as finished and holds `count` entities. Loads it."""
        if self.name + FINISHED_SUFFIX not in self._aliases():
            return False
        self.load()
        return self.count(0, count) == count

    def create(self, store: DocumentStore, longest: Mapping[str, int]) -> None:
        """Create the collection for a store, unless it exists; `longest` is from `longest_strings`."""
        properties = {STORE_PROPERTY: json.dumps({"identity": store.identity, "encoder": store.encoder["name"]})}

        def request(client: Any, seconds: float) -> None:
            if not client.has_collection(self.name, timeout=seconds):
                schema = _schema(client, store, longest)
                client.create_collection(
                    self.name, schema=schema, consistency_level="Bounded", properties=properties, timeout=seconds
                )

        self._call("create", request)

    def create_index(self, index_type: str, params: Mapping[str, Any]) -> None:
        """Index the vectors by inner product, unless done. Raises ValueError if another index exists."""

        def request(client: Any, seconds: float) -> None:
            if not client.list_indexes(self.name, "vector", timeout=seconds):
                index = client.prepare_index_params()
                # Nested parameters: Milvus Lite drops parameters beside the type; a server reads both forms.
                index.add_index("vector", index_type=index_type, metric_type="IP", params={"params": dict(params)})
                client.create_index(self.name, index, timeout=seconds)

        self._call(f"index by {index_type} {dict(params)}", request)
        built = self.index()
        differing = [key for key in params if str(built.get(key)) != str(params[key])]
        if built["index_type"] != index_type or differing:
            described = ", ".join([built["index_type"], *(f"{key} {built.get(key)}" for key in params)])
            raise ValueError(
                f"the collection {self.name!r} already has another index ({described}) than requested ({index_type}, "
                f"{dict(params)}): open it as it is, or build under another name"
            )

    def index(self) -> dict[str, Any]:
        """Return type, parameters and progress of the vector index. Empty if there is none."""
        found = self._call(
            "read the index of", lambda client, s: client.describe_index(self.name, "vector", timeout=s)
        )
        return {**found.pop("params", {}), **found} if found else {}

    def load(self) -> None:
        """Load the collection into the server's memory, so that it can be searched."""
        self._call("load", lambda client, s: client.load_collection(self.name, timeout=s))

    def count(self, start: int, stop: int) -> int:
        """Count the entities with rows in [start, stop). Duplicates count."""
        (found,) = self._query(f"row >= {start} and row < {stop}", ["count(*)"])
        return found["count(*)"]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the distinct rows in [start, stop) that the collection holds, ascending; at most 16,384."""
        found = self._query(f"row >= {start} and row < {stop}", ["row"], limit=stop - start)
        return np.unique(np.array([entity["row"] for entity in found], dtype=np.int64))

    def write(self, entities: list[dict[str, Any]]) -> None:
        """Upsert entities: replace those with the same rows."""
        self._call("write to", lambda client, s: client.upsert(self.name, entities, timeout=s))

    def flush(self) -> None:
        """Write everything to disk, and index segments that are large enough."""
        self._call("flush", lambda client, s: client.flush(self.name, timeout=s))

    def finish(self) -> None:
        """Mark the collection as finished. An alias does this: Milvus 2.3 loses changed properties on a restart."""
        alias = self.name + FINISHED_SUFFIX
        try:
            self._call("finish", lambda client, s: client.create_alias(self.name, alias, timeout=s))
        except ValueError:
            if alias not in self._aliases():  # it exists if the answer was lost or another process was faster
                raise

    def search(self, vectors: np.ndarray, k: int, params: Mapping[str, Any], filter: str) -> list[Any]:
        """Return the `ids` and `distances` of the nearest entities for each of `(n, dim)` vectors.

        Consistency is bounded: the search finds writes older than five seconds and waits for no later ones. This is
        enough, since an index is verified (with strong consistency) before it is searched and not written afterwards.
        """
        return self._call(
            "search",
            lambda client, s: client.search(
                self.name,
                data=list(vectors),
                anns_field="vector",
                limit=k,
                filter=filter,
                search_params={"metric_type": "IP", "params": dict(params)},
                output_fields=["row"],  # otherwise Milvus Lite sends the vectors too
                consistency_level="Bounded",
                timeout=s,
            ),
        )

    def _query(self, filter: str, fields: Sequence[str], **limit: int) -> list[dict[str, Any]]:
        return self._call(
            "count",
            lambda client, s: client.query(
                self.name, filter=filter, output_fields=list(fields), consistency_level="Strong", timeout=s, **limit
            ),
        )

    def _aliases(self) -> list[str]:
        return self._call("read", lambda client, s: client.list_aliases(self.name, timeout=s))["aliases"]

    def _call(self, verb: str, request: Any) -> Any:
        return self.connection.call(f"{verb} the collection {self.name!r}", request)


def longest_strings(store: DocumentStore) -> dict[str, int]:
    """Return the length in bytes of the longest string in each string field of the metadata.

    Raises:
        ValueError: A string is too long for Milvus.
    """
    longest = {name: 1 for name, kind in store.metadata.items() if pa.types.is_string(kind)}
    if longest:
        for batch in parquet_batches(store.path / DOCUMENTS_FILE, list(longest)):
            for name in longest:
                longest[name] = max(longest[name], pc.max(pc.binary_length(batch.column(name))).as_py())
    for name, size in longest.items():
        if size > LONGEST_STRING:
            raise ValueError(
                f"the metadata {name!r} has a string of {size} bytes, Milvus holds {LONGEST_STRING}: shorten it"
            )
    return longest


def _schema(client: Any, store: DocumentStore, longest: Mapping[str, int]) -> Any:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=store.dim)
    for name, kind in store.metadata.items():
        if name in longest:
            schema.add_field(name, DataType.VARCHAR, max_length=longest[name])
        elif pa.types.is_boolean(kind):
            schema.add_field(name, DataType.BOOL)
        else:
            schema.add_field(name, DataType.INT64 if pa.types.is_integer(kind) else DataType.DOUBLE)
    return schema
