"""One collection of Milvus: its fields, what is in it, whose it is."""

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

LONGEST_STRING = 65_535  # bytes; what Milvus allows
STORE_PROPERTY = "amer.store"  # of the collection: JSON of the store it is made from
FINISHED_SUFFIX = "_finished"  # of the alias a collection gets when every row has been seen to be there once


class MilvusCollection:
    """A collection, by name, on a connection. Its calls may be repeated, so a lost answer does no harm.

    The field `row`, the primary key, is a document's row in the store, `vector` its embedding; the store's metadata
    are fields of their names. Texts stay in the store.

    Attributes:
        connection: to the server.
        name: of the collection.
    """

    def __init__(self, connection: MilvusConnection, name: str) -> None:
        """Name a collection, which need not exist."""
        self.connection = connection
        self.name = name

    def exists(self) -> bool:
        """Whether there is one."""
        return self._call("look for", lambda client, s: client.has_collection(self.name, timeout=s))

    def check_store(self, store: DocumentStore) -> None:
        """ValueError if it is made from another store."""
        described = self._call("read", lambda client, s: client.describe_collection(self.name, timeout=s))
        written = described["properties"].get(STORE_PROPERTY)
        if written is None or json.loads(written)["identity"] != store.identity:
            origin = "" if written is None else f" It was made with the encoder {json.loads(written)['encoder']}."
            raise ValueError(
                f"the collection {self.name!r} of {self.connection.uri} is not made from {store.path} as it is now, "
                f"encoded by {store.encoder['name']}.{origin} Build under another name, or drop the collection first"
            )

    def finished(self, count: int) -> bool:
        """Whether it is marked as finished, and holds as many entities as that; loads it."""
        if self.name + FINISHED_SUFFIX not in self._aliases():
            return False
        self.load()
        return self.count(0, count) == count

    def create(self, store: DocumentStore, longest: Mapping[str, int]) -> None:
        """Make it, for a store, unless it exists; `longest` as `longest_strings` says."""
        properties = {STORE_PROPERTY: json.dumps({"identity": store.identity, "encoder": store.encoder["name"]})}

        def request(client: Any, seconds: float) -> None:
            if not client.has_collection(self.name, timeout=seconds):
                schema = _schema(client, store, longest)
                client.create_collection(
                    self.name, schema=schema, consistency_level="Bounded", properties=properties, timeout=seconds
                )

        self._call("create", request)

    def create_index(self, index_type: str, params: Mapping[str, Any]) -> None:
        """Let the vectors be indexed by inner product, unless they are; ValueError if they are otherwise."""

        def request(client: Any, seconds: float) -> None:
            if not client.list_indexes(self.name, "vector", timeout=seconds):
                index = client.prepare_index_params()
                # Parameters in parameters: a server reads them either way, Milvus Lite drops those beside the type.
                index.add_index("vector", index_type=index_type, metric_type="IP", params={"params": dict(params)})
                client.create_index(self.name, index, timeout=seconds)

        self._call(f"index by {index_type} {dict(params)}", request)
        built = self.index()
        differing = [key for key in params if str(built.get(key)) != str(params[key])]
        if built["index_type"] != index_type or differing:
            described = ", ".join([built["index_type"], *(f"{key} {built.get(key)}" for key in params)])
            raise ValueError(
                f"the collection {self.name!r} is indexed otherwise ({described}) than asked ({index_type}, "
                f"{dict(params)}): open it as it is, or build under another name"
            )

    def index(self) -> dict[str, Any]:
        """The index of the vectors: its type, parameters and progress; empty where there is none."""
        found = self._call(
            "read the index of", lambda client, s: client.describe_index(self.name, "vector", timeout=s)
        )
        return {**found.pop("params", {}), **found} if found else {}

    def load(self) -> None:
        """Bring it into the memory of the server, where it can be searched."""
        self._call("load", lambda client, s: client.load_collection(self.name, timeout=s))

    def count(self, start: int, stop: int) -> int:
        """Entities with rows from `start` to before `stop`; one that is there twice counts twice."""
        (found,) = self._query(f"row >= {start} and row < {stop}", ["count(*)"])
        return found["count(*)"]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The distinct rows from `start` to before `stop` that are there, ascending; at most 16,384."""
        found = self._query(f"row >= {start} and row < {stop}", ["row"], limit=stop - start)
        return np.unique(np.array([entity["row"] for entity in found], dtype=np.int64))

    def write(self, entities: list[dict[str, Any]]) -> None:
        """Put entities in the place of those with the same rows, if any."""
        self._call("write to", lambda client, s: client.upsert(self.name, entities, timeout=s))

    def flush(self) -> None:
        """Have everything written to disk, and what is large enough indexed."""
        self._call("flush", lambda client, s: client.flush(self.name, timeout=s))

    def finish(self) -> None:
        """Mark it: by an alias, because Milvus 2.3 forgets altered properties when it is restarted."""
        alias = self.name + FINISHED_SUFFIX
        try:
            self._call("finish", lambda client, s: client.create_alias(self.name, alias, timeout=s))
        except ValueError:
            if alias not in self._aliases():  # as it is when the answer was lost, or another process was faster
                raise

    def search(self, vectors: np.ndarray, k: int, params: Mapping[str, Any], filter: str) -> list[Any]:
        """The `ids` and `distances` of the nearest for each of `(n, dim)` vectors.

        Consistency is bounded: what was written five seconds ago is found, and no search waits for later writes. An
        index is verified (at strong consistency) before it is searched, and then nobody writes to it.
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
                output_fields=["row"],  # nothing else: Milvus Lite would send the vectors too
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
    """Bytes of the longest string of each metadata field that holds strings.

    Raises:
        ValueError: one is too long for Milvus.
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
