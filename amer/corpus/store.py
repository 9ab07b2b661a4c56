"""The document store: a corpus's texts and unit embeddings on disk, memory-mapped, and the encoder's identity."""

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
    """Identity of the encoder in `store.json`."""

    name: Annotated[str, Field(min_length=1)]
    revision: NotRequired[str | None]
    document_prompt: NotRequired[str]
    query_prompt: NotRequired[str]
    dtype: NotRequired[str]


class StoreInfo(TypedDict):
    """Contents of `store.json`."""

    encoder: Encoder
    dim: Count
    dtype: Literal["float16", "float32"]
    count: Count
    shard_size: Count
    checksums: list[str]
    documents_sha256: NotRequired[str]


STORE_KEYS = ("encoder", "dim", "dtype", "count", "shard_size", "checksums")
ROW_GROUP = 1_024  # documents read together; a search reads a few hundred scattered ones
MOST_ROW_GROUPS = 2**14  # with three columns, fewer with more: opening a store reads the footer, which lists them all
KEPT_FILTERS = 4  # cached results of filters, one byte per document each
KEPT_ROW_GROUPS = 64  # cached row groups of texts: 45 MB of passages of 100 words


class DocumentStore:
    """A directory with `documents.parquet`, `embeddings-*.npy` and `store.json`. Open it with `DocumentStore.open`.

    The corpus is not held in memory. Shards are mapped only while they are read, because each mapping takes a file
    descriptor, and a large store may have more shards than a process may have descriptors.

    Attributes:
        path: Directory of the store.
        encoder: Identity of the encoder: `name`, `revision`, `document_prompt`, `query_prompt`, and `dtype` if it is
            not float32.
        dim: Dimension of an embedding.
        dtype: Precision on disk, float16 or float32.
        shard_size: Rows of every shard but the last.
        info: Contents of `store.json`.
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
        """Open a finished store. Checks headers and file sizes, which is fast, but no values (see `verify`).

        Raises:
            FileNotFoundError: The directory or one of its files is missing, or encoding has not finished.
            OSError: A file is truncated or unreadable.
            ValueError: A file does not fit `store.json`.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a directory: build a document store there with encode_corpus")
        if not (path / STORE_FILE).is_file():
            raise FileNotFoundError(
                f"{path} has no {STORE_FILE}, so it is not a finished document store: run encode_corpus again with "
                "the same arguments to resume"
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
        """Pickle only the path. Another process opens the store again, without the caches."""
        return DocumentStore.open, (self.path,)

    def __repr__(self) -> str:
        return f"DocumentStore({str(self.path)!r}, {len(self)} documents, dim {self.dim}, {self.encoder['name']})"

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        return parquet_metadata(self.path / DOCUMENTS_FILE)

    @cached_property
    def metadata(self) -> dict[str, pa.DataType]:
        """Names and types of the metadata fields, which filters can compare."""
        return {
            field.name: field.type for field in self._metadata.schema.to_arrow_schema() if field.name not in COLUMNS
        }

    @cached_property
    def identity(self) -> str:
        """Checksum of documents, embeddings and encoder. An index records it to recognise its store."""
        whole = {key: self.info.get(key) for key in (*STORE_KEYS, "documents_sha256")}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """Document IDs in row order. The first access reads them from disk."""
        return read_parquet(self.path / DOCUMENTS_FILE, ["id"]).column("id")

    def verify(self) -> None:
        """Read the whole store, and check the checksums, every vector and every document.

        Raises:
            OSError: The checksum of a shard or of the documents differs from `store.json`. The message names the file.
            ValueError: A vector is NaN, zero or not of unit length, or an ID repeats. The message names the file.
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
            raise OSError(
                f"{file} is damaged: the checksum of its documents differs from the recorded one; restore it"
            )

    def vectors(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Read the embeddings of rows.

        Args:
            rows: `(...,)` integer rows. -1 (padding) is refused.

        Returns:
            `(..., dim)` float32.
        """
        rows = self._checked_rows(rows)
        flat = rows.reshape(-1)
        order = np.argsort(flat, kind="stable")  # ascending rows: each shard is read once, in disk order
        ordered = flat[order]
        vectors = np.empty((len(flat), self.dim), dtype=np.float32)
        shards, starts, counts = np.unique(ordered // self.shard_size, return_index=True, return_counts=True)
        for index, start, count in zip(shards, starts, counts, strict=True):
            part = slice(start, start + count)
            shard = self._shards.open(int(index))
            vectors[order[part]] = shard[ordered[part] - index * self.shard_size]
        return vectors.reshape(*rows.shape, self.dim)

    def shard(self, index: int) -> np.ndarray:
        """Memory-map a shard: the rows from `index * shard_size` on, in the store's dtype. Takes a file descriptor."""
        return self._shards.open(index)

    def blocks(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(first row, (<= size, dim))` in row order and the store's dtype. No block spans two shards.

        Args:
            size: Most rows per block.
            start: First row.
            stop: End of the rows, exclusive. Default: the end of the store.
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
        """Return which documents match a filter: `(n,)` bool, read-only. Caches the results of the last few filters.

        Raises:
            ValueError: The filter is invalid, or does not fit the metadata (see `amer.corpus.filters`).
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
        """Read the documents of `(n,)` rows, in order: `[{"id", "title", "text"}]`, plus their metadata by name.

        Reads only the row groups with these rows, and caches the last few row groups.

        Raises:
            OSError: The file of the texts is damaged or missing. The message names it.
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
        """End row of each row group, exclusive."""
        metadata = self._metadata
        return np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def _read_row_group(self, group: int) -> pa.Table:
        path = self.path / DOCUMENTS_FILE
        with damage_named(path, "Parquet"), open_parquet(path, self._metadata) as file:
            table = file.read_row_group(group, columns=[*COLUMNS, *self.metadata])
            table.validate(full=True)  # a flipped bit may leave invalid UTF-8
            return table

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the `(n,)` int64 rows of document IDs.

        Raises:
            ValueError: Some IDs are unknown. The message names up to five.
        """
        wanted = pa.array(ids, type=pa.string())
        rows = pc.index_in(wanted, value_set=self.ids)
        if rows.null_count:
            unknown = wanted.filter(pc.is_null(rows))
            names = ", ".join(repr(name) for name in unknown.slice(0, 5).to_pylist())
            raise ValueError(f"{len(unknown)} of {len(wanted)} ids are not in the store {self.path}, such as {names}")
        return rows.to_numpy(zero_copy_only=False).astype(np.int64)

    def check_encoder(self, encoder: dict[str, Any] | None) -> None:
        """Check that an encoder is the store's, so that its vectors lie in the same space.

        The precision (`dtype`) may differ.

        Raises:
            ValueError: The name, revision or one of the prompts differs, or `encoder` is empty.
        """
        if not encoder:
            raise ValueError(
                f"no document encoder is named, but {self.path} was encoded by {self.encoder}: name this encoder"
            )
        given = complete_encoder(encoder)
        if differing := differing_fields(given, self.encoder):
            details = "; ".join(f"{key} {given[key]!r}, the store has {self.encoder[key]!r}" for key in differing)
            raise ValueError(
                f"{self.path} was encoded by another document encoder ({details}): use a store of this encoder"
            )

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
    """Write a store atomically from vectors that are already computed.

    Args:
        path: A directory that does not exist yet, or is empty.
        documents: Columns `id`, `title`, `text`, one row per document. Other columns are metadata.
        vectors: `(n, dim)` unit vectors, or an iterable of such blocks. They are not normalised here.
        encoder: Identity of the encoder: `name`, and `revision`, `document_prompt`, `query_prompt` and `dtype` unless
            they are the defaults.
        dtype: Precision on disk, float16 or float32.
        shard_size: Rows per file.

    Raises:
        ValueError: A vector is NaN, zero or not of unit length, the number of vectors differs from the number of
            documents, or an ID is missing or repeats.
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
    """Return the contents of `store.json` for a store, except the checksums of its shards."""
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
    """Return an encoder's identity with all fields. Defaults: revision None, prompts empty.

    `dtype`, the precision, is a field only if it is not float32.
    """
    if not encoder.get("name"):
        raise ValueError(f"an encoder's identity needs a name, got {encoder}")
    dtype = encoder.get("dtype", "float32")
    precision = {} if dtype == "float32" else {"dtype": dtype}
    fields = {key: encoder.get(key, default) for key, default in ENCODER_DEFAULTS.items()}
    return {"name": encoder["name"], **fields, **precision}


def differing_fields(given: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the fields in which two encoders' identities differ. Ignores the precision."""
    given, wanted = complete_encoder(given), complete_encoder(wanted)
    return [key for key in ("name", *ENCODER_DEFAULTS) if given[key] != wanted[key]]


def embedding_shards(path: Path, info: dict[str, Any]) -> Shards:
    """Return the embedding files of a store, as `store.json` describes them."""
    return Shards(path, "embeddings", info["count"], info["shard_size"], (info["dim"],), info["dtype"])


def write_documents(directory: Path, documents: pa.Table) -> None:
    """Write `documents.parquet` in small row groups, so that single documents can be read quickly."""
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
    """Cut blocks of any length into shards of `shard_size` rows (the last is shorter). All shards share one buffer."""
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
