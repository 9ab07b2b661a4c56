"""What a corpus is: documents with an id, a title, a text and metadata, and a fingerprint of all they say."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("id", "title", "text")
# What exports and Milvus call an embedding and a document's number, what Milvus keeps for itself; words of filters.
RESERVED = (*COLUMNS, "embedding", "row", "vector", "RowID", "Timestamp")
FILTER_WORDS = ("like", "exists", "null", "true", "false", *map(str.lower, keyword.kwlist))
CHECK_BLOCK = 16_384  # documents read at a time


def checked_documents(documents: pa.Table, check_repeats: bool = True) -> pa.Table:
    """The columns `id`, `title`, `text` as strings, and the metadata: the further columns, in their order.

    Metadata are strings, whole numbers (as int64), other numbers (as float64) and booleans.

    Args:
        documents: a corpus.
        check_repeats: look for ids that repeat, which takes memory for all ids.

    Raises:
        ValueError: a column is missing, null somewhere or of another type, or an id repeats.
    """
    missing = [name for name in COLUMNS if name not in documents.column_names]
    if missing:
        raise ValueError(f"documents lack the column(s) {', '.join(missing)}; needed: {', '.join(COLUMNS)}")
    if not documents.num_rows:
        raise ValueError("there are no documents: a store holds at least one")
    documents = documents.select([*COLUMNS, *(name for name in documents.column_names if name not in COLUMNS)])
    wrong = [documents.schema.field(name) for name in COLUMNS]
    wrong = [field for field in wrong if field.type not in (pa.string(), pa.large_string())]
    if wrong:
        raise ValueError(f"documents need strings, got {', '.join(f'{field.name}: {field.type}' for field in wrong)}")
    schema = pa.schema([(field.name, _stored_type(field)) for field in documents.schema])
    check_no_nulls(documents, "documents")
    empty = pc.index(documents.column("id"), "").as_py()
    if empty >= 0:
        raise ValueError(f"documents: row {empty} has the empty string as its id, give it a name")
    numbers = [field.name for field in schema if pa.types.is_floating(field.type)]
    infinite = [name for name in numbers if not pc.all(pc.is_finite(documents[name])).as_py()]
    if infinite:
        raise ValueError(
            f"documents: NaN or infinite in column(s) {', '.join(infinite)}, which engines order differently"
        )
    if check_repeats:
        check_ids(documents.column("id"), "documents")
    return documents.cast(schema)


def _stored_type(field: pa.Field) -> pa.DataType:
    """How a store keeps a column; ValueError if it cannot be metadata."""
    if field.name in COLUMNS:
        return pa.string()
    if (
        field.name in RESERVED
        or field.name.lower() in FILTER_WORDS
        or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", field.name)
    ):
        raise ValueError(
            f"the column {field.name!r} cannot be metadata by that name: rename it to letters, digits and _, not one "
            f"of {', '.join(RESERVED)} nor a word of filters or of Python, or drop it"
        )
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if kind in (pa.string(), pa.large_string()):
        return pa.string()
    if pa.types.is_boolean(kind):
        return kind
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    raise ValueError(
        f"the column {field.name!r} is of type {field.type}, metadata are strings, numbers or booleans: convert it or "
        "drop it"
    )


def check_no_nulls(documents: pa.Table | pa.RecordBatch, where: str) -> None:
    """ValueError when a field is null; an untitled document has the empty title."""
    nulls = [name for name in documents.schema.names if documents.column(name).null_count]
    if nulls:
        raise ValueError(f"{where}: null in column(s) {', '.join(nulls)}; write the empty string for a missing title")


def check_ids(ids: pa.ChunkedArray, where: str) -> None:
    """ValueError when a document id repeats."""
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise ValueError(f"{where}: ids repeat, among them {', '.join(map(repr, repeated.slice(0, 5).to_pylist()))}")


def fingerprint(documents: pa.Table) -> str:
    """sha256 over ids, titles, texts and metadata, in order; the same however the table is cut into chunks."""
    return fingerprint_of_columns(
        documents.schema, lambda name: documents.select([name]).to_batches(max_chunksize=CHECK_BLOCK)
    )


def fingerprint_of_columns(schema: pa.Schema, batches: Callable[[str], Iterable[pa.RecordBatch]]) -> str:
    """The fingerprint of columns that are read one after another, each batch by batch, by their names."""
    total = hashlib.sha256()
    for field in schema:
        kind = _stored_type(field)
        if field.name not in COLUMNS:
            total.update(f"{field.name} {kind}".encode())
        lengths, values = hashlib.sha256(), hashlib.sha256()
        for batch in batches(field.name):
            column = batch.column(0).cast(kind)
            if pa.types.is_string(kind):
                ends, characters = _string_buffers(column)
                lengths.update(np.diff(ends).astype("<i8").tobytes())
                values.update(characters)
            else:
                values.update(column.to_numpy(zero_copy_only=False).tobytes())
        total.update(lengths.digest() + values.digest())
    return total.hexdigest()


def _string_buffers(column: pa.StringArray) -> tuple[np.ndarray, memoryview]:
    """Where the strings of a column begin and end, `(n + 1,)`, and their bytes, one after another, uncopied."""
    _, offsets, characters = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return ends, memoryview(characters or b"")[ends[0] : ends[-1]]
