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
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name
CHECK_BLOCK = 16_384  # documents read at a time


def checked_documents(documents: pa.Table, check_repeats: bool = True) -> pa.Table:
    """The columns `id`, `title`, `text` as strings, and the metadata: the further columns, in their order.

    Ids and texts are taken as `with_texts` does. Metadata are strings, whole numbers (as int64), other numbers (as
    float64) and booleans.

    Args:
        documents: a corpus.
        check_repeats: look for ids that repeat, which takes memory for all ids.

    Raises:
        ValueError: a column is missing, null somewhere or of another type, or an id repeats.
    """
    documents = with_texts(documents, "documents")
    if not documents.num_rows:
        raise ValueError("there are no documents: a store holds at least one")
    documents = documents.select([*COLUMNS, *(name for name in documents.column_names if name not in COLUMNS)])
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


def with_texts(documents: pa.Table, where: str) -> pa.Table:
    """A corpus whose `id`, `title` and `text` are strings, however Arrow kept them.

    They may be dictionaries or views of strings; ids may be whole numbers, so that 7 and "7" are one id. The index
    that pandas writes along is dropped.

    Args:
        documents: a corpus.
        where: it comes from, for the message.

    Raises:
        ValueError: a column is missing, null somewhere or of another type; names it.
    """
    missing = [name for name in COLUMNS if name not in documents.column_names]
    if missing:
        raise ValueError(f"{where} lacks the column(s) {', '.join(missing)}; needed: {', '.join(COLUMNS)}")
    twice = sorted({name for name in documents.column_names if documents.column_names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: several columns are called {', '.join(twice)}: rename all but one")
    documents = documents.drop_columns([name for name in documents.column_names if PANDAS_INDEX.fullmatch(name)])
    for name in COLUMNS:
        column = string_column(documents, name, where, whole_numbers=name == "id")
        documents = documents.set_column(documents.column_names.index(name), name, column)
    check_no_nulls(documents.select(COLUMNS), where)
    return documents


def string_column(table: pa.Table, name: str, where: str, whole_numbers: bool = False) -> pa.ChunkedArray:
    """A column as strings, whether Arrow keeps it as strings, views of strings or a dictionary.

    Args:
        table: has the column.
        name: of the column.
        where: the table comes from, for the message.
        whole_numbers: are written as text too, for columns of ids.

    Raises:
        ValueError: it holds anything else.
    """
    column = table.column(name)
    coded = pa.types.is_dictionary(column.type)
    kind = column.type.value_type if coded else column.type
    if not _is_text(kind) and not (whole_numbers and pa.types.is_integer(kind)):
        more = " or whole numbers" if whole_numbers else ""
        raise ValueError(f"{where}: column {name!r} is {column.type}; it must hold strings{more}: convert it")
    if column.type in (pa.string(), pa.large_string()):
        return column
    chunks = [chunk.dictionary_decode() if coded else chunk for chunk in column.chunks]
    return pa.chunked_array([chunk.cast(pa.string()) for chunk in chunks], pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


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
    if _is_text(kind):
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
    """ValueError when a field is null; names the columns and the first such row."""
    nulls = [name for name in documents.schema.names if documents.column(name).null_count]
    if nulls:
        column = documents.column(nulls[0])
        found = f"{column.null_count} nulls, first in row {pc.index(pc.is_null(column), True).as_py() + 1}"
        texts = any(name in COLUMNS for name in nulls)
        advice = "write the empty string for a missing title" if texts else "fill in the metadata, or drop the column"
        raise ValueError(f"{where}: null in column(s) {', '.join(nulls)}: {found}; {advice}")


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
