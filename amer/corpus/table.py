"""The contract of a corpus: documents with an ID, a title, a text and metadata. Checks and a fingerprint."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("id", "title", "text")
# Names that exports and Milvus use for embeddings and rows, and names that Milvus reserves. Then words of filters.
RESERVED = (*COLUMNS, "embedding", "row", "vector", "RowID", "Timestamp")
FILTER_WORDS = ("like", "exists", "null", "true", "false", *map(str.lower, keyword.kwlist))
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # name that pandas gives an unnamed index
CHECK_BLOCK = 16_384  # documents read at a time


def checked_documents(documents: pa.Table, check_repeats: bool = True) -> pa.Table:
    """Check a corpus, and return `id`, `title` and `text` as strings followed by the metadata columns.

    IDs and texts are converted as in `with_texts`. Metadata are strings, integers (as int64), other numbers (as
    float64) and booleans.

    Args:
        documents: A corpus.
        check_repeats: Check that no ID repeats, which needs memory for all IDs.

    Raises:
        ValueError: A column is missing, has a null or is of another type, or an ID repeats.
    """
    documents = with_texts(documents, "documents")
    if not documents.num_rows:
        raise ValueError("there are no documents: a store holds at least one")
    documents = documents.select([*COLUMNS, *(name for name in documents.column_names if name not in COLUMNS)])
    schema = pa.schema([(field.name, _stored_type(field)) for field in documents.schema])
    check_no_nulls(documents, "documents")
    empty = pc.index(documents.column("id"), "").as_py()
    if empty >= 0:
        raise ValueError(f"documents: row {empty} has the empty string as its id: give it another id")
    numbers = [field.name for field in schema if pa.types.is_floating(field.type)]
    infinite = [name for name in numbers if not pc.all(pc.is_finite(documents[name])).as_py()]
    if infinite:
        raise ValueError(
            f"documents: NaN or infinite in column(s) {', '.join(infinite)}: replace these values, because engines "
            "order them differently"
        )
    if check_repeats:
        check_ids(documents.column("id"), "documents")
    return documents.cast(schema)


def with_texts(documents: pa.Table, where: str) -> pa.Table:
    """Return a corpus with `id`, `title` and `text` as strings.

    The columns may be dictionaries or views of strings. IDs may also be integers: 7 and "7" are the same ID. An index
    column from pandas is dropped.

    Args:
        documents: A corpus.
        where: Where the corpus comes from, for messages.

    Raises:
        ValueError: A column is missing, has a null or is of another type. The message names it.
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
    """Return a column as strings. Arrow may store it as strings, views of strings or a dictionary.

    Args:
        table: Table with the column.
        name: Name of the column.
        where: Where the table comes from, for messages.
        whole_numbers: Convert integers to strings too, for columns of IDs.

    Raises:
        ValueError: The column is of another type.
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
    """Return the type of a column in a store. Raises ValueError if the column cannot be metadata."""
    if field.name in COLUMNS:
        return pa.string()
    if (
        field.name in RESERVED
        or field.name.lower() in FILTER_WORDS
        or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", field.name)
    ):
        raise ValueError(
            f"{field.name!r} is not allowed as the name of a metadata column: drop the column, or rename it. Use "
            f"letters, digits and _, but none of {', '.join(RESERVED)} and no word of filters or of Python"
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
        f"the column {field.name!r} is of type {field.type}, but metadata are strings, numbers or booleans: convert "
        "the column or drop it"
    )


def check_no_nulls(documents: pa.Table | pa.RecordBatch, where: str) -> None:
    """Raise ValueError if a value is null. The message names the columns and the first such row."""
    nulls = [name for name in documents.schema.names if documents.column(name).null_count]
    if nulls:
        column = documents.column(nulls[0])
        found = f"{column.null_count} nulls, first in row {pc.index(pc.is_null(column), True).as_py() + 1}"
        texts = any(name in COLUMNS for name in nulls)
        advice = "write the empty string for a missing title" if texts else "fill in the metadata, or drop the column"
        raise ValueError(f"{where}: null in column(s) {', '.join(nulls)}: {found}; {advice}")


def check_ids(ids: pa.ChunkedArray, where: str) -> None:
    """Raise ValueError if a document ID repeats."""
    repeated = repeated_ids(ids)
    if len(repeated):
        raise ValueError(f"{where}: ids repeat, among them {', '.join(map(repr, repeated[:5].to_pylist()))}")


def repeated_ids(ids: pa.ChunkedArray) -> pa.Array:
    """Return the IDs that occur more than once, in the order of their first occurrence."""
    if pc.count_distinct(ids).as_py() == len(ids):  # needs less memory than counting
        return pa.array([], ids.type)
    counts = pc.value_counts(ids)
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def fingerprint(documents: pa.Table) -> str:
    """Return the sha256 of IDs, titles, texts and metadata, in order. It does not depend on the table's chunks."""
    return fingerprint_of_columns(
        documents.schema, lambda name: documents.select([name]).to_batches(max_chunksize=CHECK_BLOCK)
    )


def fingerprint_of_columns(schema: pa.Schema, batches: Callable[[str], Iterable[pa.RecordBatch]]) -> str:
    """Return the fingerprint of a table. `batches` yields the batches of one column, by name."""
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
    """Return the offsets `(n + 1,)` of a column's strings, and their concatenated bytes, without a copy."""
    _, offsets, characters = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return ends, memoryview(characters or b"")[ends[0] : ends[-1]]
