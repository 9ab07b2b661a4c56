"""Make a document store from vectors computed elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from amer.corpus.store import DocumentStore, write_store
from amer.extras import import_extra
from amer.files import open_npy, read_parquet

BLOCK = 16_384  # vectors held at a time
EMBEDDING = "embedding"
Vectors = np.ndarray | torch.Tensor | Sequence[Any] | str | os.PathLike[str]
"""`(n, dim)`: an array or tensor, a list of vectors, or a file: `.npy`, or with any other ending a FAISS index."""


def import_vectors(
    path: str | os.PathLike[str],
    documents: pa.Table,
    vectors: Vectors | Any,
    encoder: dict[str, Any],
    normalize: bool = False,
    dtype: str = "float16",
    shard_size: int = 65_536,
    show_progress_bar: bool = True,
) -> DocumentStore:
    """Write a store atomically from vectors computed elsewhere, block by block.

    Args:
        path: A directory that does not exist yet, or is empty.
        documents: Columns `id`, `title`, `text` and metadata. One row per vector, in the same order.
        vectors: The result of `SentenceTransformer.encode` (an array, a tensor, or a list of either), a `.npy` file,
            which is read block by block, or a FAISS index that stores whole vectors, or the file of one.
        encoder: Identity of the encoder: `name`, and `revision`, `document_prompt` and `query_prompt` unless they are
            the defaults.
        normalize: Scale every vector to unit length. Otherwise, all vectors must have unit length.
        dtype: Precision on disk, float16 or float32.
        shard_size: Rows per file.
        show_progress_bar: Show how many vectors are done.

    Raises:
        OSError: The file is missing, truncated or of another format.
        TypeError: `vectors` is of another type.
        ValueError: The number of vectors differs from the number of documents, a vector is NaN, zero or not of unit
            length (see `normalize`), or a FAISS index stores only codes.
    """
    source = _opened(Path(vectors)) if isinstance(vectors, str | os.PathLike) else vectors
    source = _FaissVectors(source) if hasattr(source, "reconstruct_n") else source
    if not isinstance(source, np.ndarray | torch.Tensor | Sequence | _Column | _FaissVectors):
        raise TypeError(
            f"vectors must be an array, a tensor, a list of these, a FAISS index or a file, got {type(vectors)}"
        )
    if len(source) != documents.num_rows:
        raise ValueError(f"{documents.num_rows} documents but {len(source)} vectors: give one vector per document")
    blocks = (_prepared(source[rows], normalize) for rows in _cuts(len(source), show_progress_bar))
    return write_store(path, documents, blocks, encoder, dtype, shard_size)


def import_table(
    path: str | os.PathLike[str],
    table: pa.Table | Any | str | os.PathLike[str],
    encoder: dict[str, Any],
    embedding: str = EMBEDDING,
    **options: Any,
) -> DocumentStore:
    """Write a store from a table that has the vectors in a column.

    Args:
        path: A directory that does not exist yet, or is empty.
        table: Columns `id`, `title`, `text`, metadata, and the vectors as lists of numbers: an Arrow table, a
            `datasets.Dataset` or a Parquet file.
        encoder: As in `import_vectors`.
        embedding: Name of the column with the vectors.
        **options: `normalize`, `dtype`, `shard_size`, `show_progress_bar` of `import_vectors`.

    Raises:
        OSError, TypeError, ValueError: As `import_vectors`, or the column does not exist or holds vectors of different
            sizes.
    """
    table = _as_table(table)
    if embedding not in table.column_names:
        raise ValueError(
            f"there is no column {embedding!r} of vectors: name one of the columns {', '.join(table.column_names)}"
        )
    column = table.column(embedding)
    return import_vectors(path, table.drop_columns([embedding]), _Column(column), encoder, **options)


class _Column:
    """A column of lists, cut into matrices."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, rows: slice) -> np.ndarray:
        part = self.column.slice(rows.start, rows.stop - rows.start).combine_chunks()
        if part.null_count or not hasattr(part, "flatten"):
            raise ValueError(
                f"the column of vectors is {part.type} with {part.null_count} nulls: it must hold lists, without nulls"
            )
        values = part.flatten().to_numpy(zero_copy_only=False)
        if len(values) % len(part) or (np.diff(_ends(part)) != len(values) // len(part)).any():
            raise ValueError(
                f"the vectors of rows {rows.start} to {rows.stop - 1} differ in size: all vectors need the same size"
            )
        return values.reshape(len(part), -1)


class _FaissVectors:
    """The vectors of a FAISS index in the order of their IDs. An ID is the row of a document."""

    def __init__(self, index: Any) -> None:
        faiss = import_extra("faiss", "cpu", "reading a FAISS index")
        self.index = index  # keeps the inner index alive
        self.inner = faiss.downcast_index(index)
        self.order: np.ndarray | None = None  # position of each row in the inner index, if they differ
        if isinstance(self.inner, faiss.IndexIDMap | faiss.IndexIDMap2):
            self.order = _order_of_ids(faiss.vector_to_array(self.inner.id_map))
            self.inner = faiss.downcast_index(self.inner.index)
        if isinstance(self.inner, faiss.IndexIDMap | faiss.IndexIDMap2):
            raise ValueError("the index maps ids to ids, so it is unclear which ids are rows: import the vectors")
        whole = isinstance(self.inner, faiss.IndexFlat | faiss.IndexHNSWFlat | faiss.IndexIVFFlat)
        quantizer = getattr(self.inner, "sq", None)
        if not whole and (quantizer is None or quantizer.qtype != faiss.ScalarQuantizer.QT_fp16):
            raise ValueError(
                f"{type(self.inner).__name__} keeps codes, which do not give the exact vectors: import the vectors it "
                "was built from"
            )
        if isinstance(self.inner, faiss.IndexIVF):
            try:
                self.inner.make_direct_map()
            except RuntimeError as error:
                raise ValueError(
                    "the index has custom ids in its lists, so the order is lost: import the vectors themselves"
                ) from error

    def __len__(self) -> int:
        return self.inner.ntotal

    def __getitem__(self, rows: slice) -> np.ndarray:
        if self.order is None:
            return self.inner.reconstruct_n(rows.start, rows.stop - rows.start)
        return self.inner.reconstruct_batch(self.order[rows])


def _order_of_ids(ids: np.ndarray) -> np.ndarray | None:
    """Return the position of each row, from the IDs of the vectors. None if the vectors were added in row order.

    Raises:
        ValueError: The IDs do not determine an order of rows.
    """
    if (np.diff(ids) > 0).all():
        return None
    order = np.argsort(ids)
    if not np.array_equal(ids[order], np.arange(len(ids))):
        raise ValueError(
            f"the index holds ids such as {ids[:3].tolist()}, which are neither ascending nor the numbers 0 to "
            f"{len(ids) - 1}: import the vectors themselves, in the order of the documents"
        )
    return order


def _ends(lists: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(lists.type):
        return np.arange(len(lists) + 1) * lists.type.list_size
    return lists.offsets.to_numpy()


def _as_table(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, str | os.PathLike):
        return read_parquet(table)
    if isinstance(table, dict) and hasattr(table, "with_format"):  # datasets.DatasetDict
        raise TypeError(f"documents with vectors are one table, got the splits {', '.join(map(str, table))}: pass one")
    if hasattr(table, "with_format"):  # datasets.Dataset, which need not be installed
        return table.with_format("arrow")[:]
    raise TypeError(f"documents with vectors must be an Arrow table, a Dataset or a parquet file, got {type(table)}")


def _opened(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file: give a .npy file or the file of a FAISS index")
    if file.suffix.lower() == ".npy":
        return open_npy(file)
    faiss = import_extra("faiss", "cpu", "reading a FAISS index")
    try:
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise OSError(f"{file} is truncated or not a FAISS index ({error}): give another file") from error


def _prepared(vectors: Any, normalize: bool) -> np.ndarray:
    """Return `(n, dim)` float32, normalised if `normalize`. Leaves zero and NaN vectors to `write_store`."""
    if isinstance(vectors, Sequence):
        vectors = np.stack([_as_array(vector) for vector in vectors])
    vectors = _as_array(vectors)
    if not normalize or vectors.ndim != 2:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _as_array(vectors: Any) -> np.ndarray:
    if isinstance(vectors, torch.Tensor):
        vectors = vectors.detach().cpu()
        vectors = vectors if vectors.is_complex() else vectors.float()
    vectors = np.asarray(vectors)
    if vectors.dtype.kind not in "fiu":
        raise ValueError(f"vectors are of {vectors.dtype}: they must be real numbers, such as float32")
    return vectors.astype(np.float32, copy=False)


def _cuts(count: int, show_progress_bar: bool) -> Iterator[slice]:
    with tqdm(total=count, desc="Reading", unit="vector", disable=not show_progress_bar) as progress:
        for start in range(0, count, BLOCK):
            rows = slice(start, min(start + BLOCK, count))
            yield rows
            progress.update(rows.stop - rows.start)
