"""The document store: texts and unit embeddings of a corpus on disk, memory-mapped, and who embedded them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field
from typing_extensions import TypedDict

from amer.corpus.filters import Filter
from amer.corpus.shards import Shards, check_unit
from amer.corpus.table import (
    CHECK_BLOCK,
    COLUMNS,
    check_ids,
    check_no_nulls,
    checked_documents,
    fingerprint,
    fingerprint_of_columns,
)
from amer.files import (
    Count,
    atomic_directory,
    atomic_write,
    damage_named,
    open_parquet,
    parquet_batches,
    parquet_metadata,
    read_manifest,
    read_parquet,
)

DOCUMENTS_FILE = "documents.parquet"
STORE_FILE = "store.json"
DTYPES = ("float16", "float32")
ENCODER_DEFAULTS = {"revision": None, "document_prompt": "", "query_prompt": ""}


class Encoder(TypedDict):
    """Who made embeddings, as `store.json` has it."""

    name: Annotated[str, Field(min_length=1)]
    revision: NotRequired[str | None]
    document_prompt: NotRequired[str]
    query_prompt: NotRequired[str]
    dtype: NotRequired[str]


class StoreInfo(TypedDict):
    """What `store.json` says."""

    encoder: Encoder
    dim: Count
    dtype: Literal["float16", "float32"]
    count: Count
    shard_size: Count
    checksums: list[str]
    documents_sha256: NotRequired[str]


STORE_KEYS = ("encoder", "dim", "dtype", "count", "shard_size", "checksums")
ROW_GROUP = 1_024  # documents fetched together: a search reads some hundred scattered ones
MOST_ROW_GROUPS = 2**14  # of three columns, fewer of more: the footer describes each, and opening a store reads it
KEPT_FILTERS = 4  # of a byte a document
KEPT_ROW_GROUPS = 64  # of texts that were read last: 45 MB of passages of 100 words


class DocumentStore:
    """A directory of `documents.parquet`, `embeddings-*.npy` and `store.json`, opened by `DocumentStore.open`.

    Holds no corpus in memory. Shards are mapped when they are read: every mapping costs a file descriptor, and a large
    store may have more shards than a process may hold descriptors.

    Attributes:
        path: the directory.
        encoder: who made the embeddings: `name`, `revision`, `document_prompt`, `query_prompt`, and `dtype` where it
            is not float32.
        dim: size of an embedding.
        dtype: float16 or float32, as stored.
        shard_size: rows of every shard but the last.
        info: all of `store.json`.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        """Use `DocumentStore.open`, which checks the directory."""
        self.path = path
        self.info = info
        self.encoder: dict[str, Any] = info["encoder"]
        self.dim: int = info["dim"]
        self.dtype: str = info["dtype"]
        self.shard_size: int = info["shard_size"]
        self._count: int = info["count"]
        self._shards = embedding_shards(path, info)
        self._matching = lru_cache(KEPT_FILTERS)(self._evaluate)
        self._row_group = lru_cache(KEPT_ROW_GROUPS)(self._read_row_group)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DocumentStore:
        """Open a finished store at once: headers and file sizes are checked, values are not (see `verify`).

        Raises:
            FileNotFoundError: no such directory, or one of its files is missing (also: encoding has not finished).
            OSError: a file is truncated or unreadable.
            ValueError: a file does not fit `store.json`.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a directory: build a document store there with encode_corpus")
        if not (path / STORE_FILE).is_file():
            raise FileNotFoundError(
                f"{path} has no {STORE_FILE}, so it is not a finished document store: run encode_corpus again with "
                "the same arguments, it resumes where it stopped"
            )
        info = _checked_info(path / STORE_FILE)
        _check_documents_file(path / DOCUMENTS_FILE, info["count"])
        shards = embedding_shards(path, info)
        for index in range(len(shards)):
            shards.open(index)
        return cls(path, info)

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes open it anew: what it remembers stays here."""
        return DocumentStore.open, (self.path,)

    def __repr__(self) -> str:
        return f"DocumentStore({str(self.path)!r}, {len(self)} documents, dim {self.dim}, {self.encoder['name']})"

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        return parquet_metadata(self.path / DOCUMENTS_FILE)

    @cached_property
    def metadata(self) -> dict[str, pa.DataType]:
        """Name and type of the documents' metadata: what filters may compare."""
        return {
            field.name: field.type for field in self._metadata.schema.to_arrow_schema() if field.name not in COLUMNS
        }

    @cached_property
    def identity(self) -> str:
        """One checksum of everything the store holds: documents, embeddings, encoder; what an index remembers."""
        whole = {key: self.info.get(key) for key in (*STORE_KEYS, "documents_sha256")}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """Document ids in row order, read from disk when first asked for."""
        return read_parquet(self.path / DOCUMENTS_FILE, ["id"]).column("id")

    def verify(self) -> None:
        """Read everything: checksums, every vector, every document.

        Raises:
            OSError: the checksum of a shard or of the documents differs from the one in `store.json`; names the file.
            ValueError: NaN, a zero or non-unit vector, a repeated id; names the file.
        """
        for index, checksum in enumerate(self.info["checksums"]):
            self._shards.verify(index, checksum)
            shard, file = self._shards.open(index), str(self._shards.file(index))
            for start in range(0, len(shard), CHECK_BLOCK):
                check_unit(shard[start : start + CHECK_BLOCK].astype(np.float32), file, start)
        self._verify_documents(self.path / DOCUMENTS_FILE)

    def _verify_documents(self, file: Path) -> None:
        for batch in parquet_batches(file, metadata=self._metadata):
            check_no_nulls(batch, str(file))
        schema = self._metadata.schema.to_arrow_schema()
        found = fingerprint_of_columns(schema, lambda name: parquet_batches(file, [name], CHECK_BLOCK, self._metadata))
        check_ids(self.ids, str(file))
        if self.info.get("documents_sha256", found) != found:
            raise OSError(f"{file} is damaged: its documents are not those that were recorded; restore it")

    def vectors(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Gather embeddings.

        Args:
            rows: `(...,)` integer rows; -1 (padding) has no vector and is refused.

        Returns:
            `(..., dim)` float32.
        """
        rows = self._checked_rows(rows)
        flat = rows.reshape(-1)
        order = np.argsort(flat, kind="stable")  # ascending rows: every shard is visited once, in disk order
        ordered = flat[order]
        vectors = np.empty((len(flat), self.dim), dtype=np.float32)
        shards, starts, counts = np.unique(ordered // self.shard_size, return_index=True, return_counts=True)
        for index, start, count in zip(shards, starts, counts, strict=True):
            part = slice(start, start + count)
            shard = self._shards.open(int(index))
            vectors[order[part]] = shard[ordered[part] - index * self.shard_size]
        return vectors.reshape(*rows.shape, self.dim)

    def shard(self, index: int) -> np.ndarray:
        """Memory-map a shard: the rows from `index * shard_size` on, in the store's dtype; it holds a descriptor."""
        return self._shards.open(index)

    def blocks(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(first row, (<= size, dim))` in row order and the store's dtype; no block spans shards.

        Args:
            size: most rows of a block.
            start: first row.
            stop: row behind the last; the store's end by default.
        """
        if size < 1:
            raise ValueError(f"a block has at least one row, got size={size}")
        stop = len(self) if stop is None else min(stop, len(self))
        for index in range(start // self.shard_size, -(-stop // self.shard_size)):
            shard, offset = self._shards.open(index), index * self.shard_size
            end = min(stop - offset, len(shard))
            for first in range(max(start - offset, 0), end, size):
                yield offset + first, shard[first : min(first + size, end)].copy()

    def matching(self, filter: str) -> np.ndarray:
        """Which documents fulfil a filter: `(n,)` bool, read-only; the last few filters are remembered.

        Raises:
            ValueError: the expression is none, or does not fit the metadata (see `amer.corpus.filters`).
        """
        return self._matching(filter)

    def _evaluate(self, filter: str) -> np.ndarray:
        checked, found = Filter(filter, self.metadata), np.empty(len(self), dtype=bool)
        file, start = self.path / DOCUMENTS_FILE, 0
        for batch in parquet_batches(file, sorted(checked.fields), CHECK_BLOCK, self._metadata):
            found[start : start + len(batch)] = checked.matches(batch)
            start += len(batch)
        found.flags.writeable = False
        return found

    def documents(self, rows: np.ndarray | Sequence[int]) -> list[dict[str, Any]]:
        """The texts of `(n,)` rows, in order: `[{"id", "title", "text"}]`, and their metadata by name.

        Reads only the row groups they lie in; the last few are remembered.

        Raises:
            OSError: the texts are damaged, or gone; names the file.
        """
        rows = self._checked_rows(rows)
        if rows.ndim != 1:
            raise ValueError(f"rows must be one-dimensional, got shape {rows.shape}")
        if not len(rows):
            return []
        unique, places = np.unique(rows, return_inverse=True)
        groups, starts = np.unique(np.searchsorted(self._group_ends, unique, side="right"), return_index=True)
        records: list[dict[str, Any]] = []
        for group, wanted in zip(groups.tolist(), np.split(unique, starts[1:]), strict=True):
            first = self._group_ends[group - 1] if group else 0
            records += self._row_group(group).take(wanted - first).to_pylist()
        return [records[place] for place in places]

    @cached_property
    def _group_ends(self) -> np.ndarray:
        """The row behind the last of each row group."""
        metadata = self._metadata
        return np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def _read_row_group(self, group: int) -> pa.Table:
        path = self.path / DOCUMENTS_FILE
        with damage_named(path, "Parquet"), open_parquet(path, self._metadata) as file:
            table = file.read_row_group(group, columns=[*COLUMNS, *self.metadata])
            table.validate(full=True)  # a flipped bit may leave text that is no UTF-8
            return table

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """The `(n,)` int64 rows of document ids.

        Raises:
            ValueError: unknown ids; names up to five.
        """
        wanted = pa.array(ids, type=pa.string())
        rows = pc.index_in(wanted, value_set=self.ids)
        if rows.null_count:
            unknown = wanted.filter(pc.is_null(rows))
            names = ", ".join(repr(name) for name in unknown.slice(0, 5).to_pylist())
            raise ValueError(f"{len(unknown)} of {len(wanted)} ids are not in the store {self.path}, such as {names}")
        return rows.to_numpy(zero_copy_only=False).astype(np.int64)

    def check_encoder(self, encoder: dict[str, Any] | None) -> None:
        """Refuse an encoder other than the store's: its vectors would be compared with those of another space.

        Another precision (`dtype`) is the same space.

        Raises:
            ValueError: the name, revision or one of the prompts differs, or there is no identity to compare.
        """
        if not encoder:
            raise ValueError(f"no document encoder is named, but {self.path} was encoded by {self.encoder}: name it")
        given = complete_encoder(encoder)
        if differing := differing_fields(given, self.encoder):
            details = "; ".join(f"{key} {given[key]!r}, the store has {self.encoder[key]!r}" for key in differing)
            raise ValueError(f"{self.path} was encoded by another document encoder ({details}): use one of its own")

    def _checked_rows(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"rows must be integers, got {rows.dtype}")
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in 0..{len(self) - 1}, got {rows.min()}..{rows.max()} (-1 is padding)")
        return rows.astype(np.int64, copy=False)


def write_store(
    path: str | os.PathLike[str],
    documents: pa.Table,
    vectors: np.ndarray | Iterable[np.ndarray],
    encoder: dict[str, Any],
    dtype: str = "float16",
    shard_size: int = 65_536,
) -> DocumentStore:
    """Write a store from vectors already computed, whole or not at all.

    Args:
        path: a directory that does not exist yet, or is empty.
        documents: columns `id`, `title`, `text`, one row a document; further ones are its metadata.
        vectors: `(n, dim)` of unit length, or an iterable of such blocks; nothing is normalised here.
        encoder: `name`, and where they are not the defaults `revision`, `document_prompt`, `query_prompt`, `dtype`.
        dtype: float16 or float32, on disk.
        shard_size: rows per file.

    Raises:
        ValueError: vectors that are not unit, NaN or zero, or as many as the documents; ids repeated or missing.
    """
    documents = checked_documents(documents)
    blocks = iter([vectors]) if isinstance(vectors, np.ndarray) else iter(vectors)
    first = next(blocks, None)
    if first is None or np.ndim(first) != 2 or not np.shape(first)[1]:
        raise ValueError(f"vectors must be (n, dim), got {None if first is None else np.shape(first)}")
    info = store_info(documents, encoder, np.shape(first)[1], dtype, shard_size)
    with atomic_directory(path) as directory:
        write_documents(directory, documents)
        shards = embedding_shards(directory, info)
        written = 0
        for index, shard in enumerate(_shards(chain([first], blocks), info)):
            written += len(shard)
            if written > info["count"]:
                break
            shards.write(index, shard)
        if written != info["count"]:
            raise ValueError(f"{info['count']} documents but {'more' if written > info['count'] else written} vectors")
        shards.finish(STORE_FILE, info)
    return DocumentStore.open(path)


def store_info(documents: pa.Table, encoder: dict[str, Any], dim: int, dtype: str, shard_size: int) -> dict[str, Any]:
    """What `store.json` says of a store, but for the checksums of its shards."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    return {
        "encoder": complete_encoder(encoder),
        "dim": int(dim),
        "dtype": dtype,
        "count": documents.num_rows,
        "shard_size": shard_size,
        "documents_sha256": fingerprint(documents),
    }


def complete_encoder(encoder: dict[str, Any]) -> dict[str, Any]:
    """An encoder's identity with every field: no revision is None, no prompt is the empty string.

    `dtype`, the precision, is a field only where it is not float32.
    """
    if not encoder.get("name"):
        raise ValueError(f"an encoder's identity needs a name, got {encoder}")
    dtype = encoder.get("dtype", "float32")
    precision = {} if dtype == "float32" else {"dtype": dtype}
    fields = {key: encoder.get(key, default) for key, default in ENCODER_DEFAULTS.items()}
    return {"name": encoder["name"], **fields, **precision}


def differing_fields(given: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Where two encoders' identities name different spaces: the precision is no part of that."""
    given, wanted = complete_encoder(given), complete_encoder(wanted)
    return [key for key in ("name", *ENCODER_DEFAULTS) if given[key] != wanted[key]]


def embedding_shards(path: Path, info: dict[str, Any]) -> Shards:
    """The embedding files of a store, from what `store.json` says of them."""
    return Shards(path, "embeddings", info["count"], info["shard_size"], (info["dim"],), info["dtype"])


def write_documents(directory: Path, documents: pa.Table) -> None:
    """Write `documents.parquet`, in row groups small enough to fetch single documents from."""
    metadata = documents.column_names[len(COLUMNS) :]
    most_row_groups = max(1, MOST_ROW_GROUPS * len(COLUMNS) // documents.num_columns)
    row_group = max(ROW_GROUP, -(-documents.num_rows // most_row_groups))
    with atomic_write(directory / DOCUMENTS_FILE) as temporary:
        pq.write_table(
            documents,
            temporary,
            row_group_size=row_group,
            use_dictionary=["title", *metadata],
            write_statistics=False,
            write_page_checksum=True,
        )


def _checked_info(file: Path) -> dict[str, Any]:
    info: dict[str, Any] = {**read_manifest(file, StoreInfo)}
    shards = embedding_shards(file.parent, info)
    if len(info["checksums"]) != len(shards):
        raise ValueError(f"{file} has {len(info['checksums'])} checksums for {len(shards)} shards")
    return {**info, "encoder": complete_encoder(info["encoder"])}


def _check_documents_file(file: Path, count: int) -> None:
    metadata = parquet_metadata(file)
    missing = [name for name in COLUMNS if name not in metadata.schema.names]
    if missing or metadata.num_rows != count:
        found = f"{metadata.num_rows} rows of {', '.join(metadata.schema.names)}"
        raise ValueError(f"{file} has {found}, expected {count} of {', '.join(COLUMNS)}: it belongs to another store")


def _shards(blocks: Iterable[np.ndarray], info: dict[str, Any]) -> Iterator[np.ndarray]:
    """Cut blocks of any length into shards of `shard_size` rows (the last one shorter); one buffer serves all."""
    size = min(info["shard_size"], info["count"])
    shard, filled = np.empty((size, info["dim"]), dtype=np.float32), 0
    for block in blocks:
        if np.iscomplexobj(block):
            raise ValueError("vectors are complex: they must be real numbers, such as float32")
        if np.ndim(block) != 2 or np.shape(block)[1] != info["dim"]:
            raise ValueError(f"every block of vectors must be (n, {info['dim']}), got {np.shape(block)}")
        while len(block):
            taken = block[: size - filled]
            shard[filled : filled + len(taken)] = taken
            filled, block = filled + len(taken), block[len(taken) :]
            if filled == size:
                yield shard
                filled = 0
    if filled:
        yield shard[:filled]
