"""Retrieval datasets: queries (text, a vector, or both) whose targets are clusters of document ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from typing_extensions import TypedDict

from amer.checksums import check_sha256, file_checksum
from amer.corpus.table import string_column
from amer.files import atomic_directory, read_manifest, read_parquet, write_json

if TYPE_CHECKING:
    from amer.corpus.store import DocumentStore

SPLITS = ("train", "validation", "test")
CLUSTERS = pa.list_(pa.list_(pa.string()))
SPANS = pa.list_(pa.list_(pa.int32()))
Value = TypeVar("Value")


class SplitCounts(TypedDict):
    """The entry of `dataset.json` for one split."""

    queries: NotRequired[Annotated[int, Field(ge=0)]]


class DatasetInfo(TypedDict):
    """The fields of `dataset.json` that this package reads."""

    splits: NotRequired[dict[str, SplitCounts]]
    checksums: NotRequired[dict[str, str]]
    arguments: NotRequired[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class RetrievalDataset:
    """One split, indexed like any torch map-style dataset.

    Attributes:
        query_ids: One unique id per query.
        targets: The right answers of each query. A target is a cluster: the ids of the documents that cover it.
        answers: For each query, one list of answer aliases per target, or an empty list if there are none.
        queries: The query texts; None when the queries are vectors only.
        input_vectors: `(queries, dim)` float32, as they enter the model; None when the queries are text only.
        target_rows: `targets` as rows of a document store; None until `link` is called.
        spans: For each query, one `[start, end]` per target: the characters of the query that ask for it. An empty
            list means that they are not known; None means that no query has spans.

    Raises:
        ValueError: The columns do not fit together, or a value is invalid; the message names the query.
    """

    query_ids: list[str]
    targets: list[list[list[str]]]
    answers: list[list[list[str]]]
    queries: list[str] | None = None
    input_vectors: np.ndarray | None = None
    target_rows: list[list[list[int]]] | None = None
    spans: list[list[list[int]]] | None = None

    def __post_init__(self) -> None:
        _check_columns(self)
        _check_query_ids(self.query_ids)
        for query_id, targets, answers in zip(self.query_ids, self.targets, self.answers, strict=True):
            _check_targets(query_id, targets, answers)
        if self.queries is not None:
            _check_texts(self.query_ids, self.queries)
        if self.input_vectors is not None:
            _check_vectors(self.query_ids, self.input_vectors)
        if self.spans is not None:
            _check_spans(self)

    def __len__(self) -> int:
        return len(self.query_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One query: `index`, and `query`, `query_vector (dim,)`, `target_rows`, `spans` if the split has them."""
        index = range(len(self))[index]
        item: dict[str, Any] = {"index": index}
        if self.queries is not None:
            item["query"] = self.queries[index]
        if self.input_vectors is not None:
            item["query_vector"] = self.input_vectors[index]
        if self.target_rows is not None:
            item["target_rows"] = self.target_rows[index]
        if self.spans is not None:
            item["spans"] = self.spans[index]
        return item

    def link(self, store: DocumentStore) -> RetrievalDataset:
        """Return the same split with `target_rows`: the store's rows of every target document.

        Raises:
            ValueError: The store lacks some of the target documents; the message names some.
        """
        ids = [document for targets in self.targets for cluster in targets for document in cluster]
        rows = iter(store.rows_of(ids).tolist())
        target_rows = [[[next(rows) for _ in cluster] for cluster in targets] for targets in self.targets]
        return replace(self, target_rows=target_rows)

    @property
    def linked_rows(self) -> list[list[list[int]]]:
        """The `target_rows` of a linked split.

        Raises:
            ValueError: The split is not linked to a store.
        """
        if self.target_rows is None:
            raise ValueError("the split is not linked to a document store: use the split that link(store) returns")
        return self.target_rows

    def with_input_vectors(self, vectors: np.ndarray) -> RetrievalDataset:
        """Return the same split with `vectors (queries, dim)`; anchored models take the document encoder's."""
        return replace(self, input_vectors=np.asarray(vectors, dtype=np.float32))

    def select(self, indices: Iterable[int]) -> RetrievalDataset:
        """Return the queries at `indices`, in that order.

        Raises:
            IndexError: An index is out of range.
            ValueError: An index is given twice (query ids are unique).
        """
        positions = range(len(self))
        chosen = [positions[index] for index in indices]

        def take(column: list[Value]) -> list[Value]:
            return [column[index] for index in chosen]

        return RetrievalDataset(
            query_ids=take(self.query_ids),
            targets=take(self.targets),
            answers=take(self.answers),
            queries=None if self.queries is None else take(self.queries),
            input_vectors=None if self.input_vectors is None else self.input_vectors[chosen],
            target_rows=None if self.target_rows is None else take(self.target_rows),
            spans=None if self.spans is None else take(self.spans),
        )


def load_dataset_dir(path: str | os.PathLike[str]) -> dict[str, RetrievalDataset]:
    """Read the splits of a dataset directory and check all of them.

    Args:
        path: A directory with `dataset.json` and at least one of `train.parquet`, `validation.parquet`,
            `test.parquet`.

    Raises:
        FileNotFoundError: The directory, its `dataset.json` or a split is missing.
        OSError: A file is truncated or damaged, or does not match its checksum in `dataset.json`.
        ValueError: The content of a file is invalid.
    """
    path = Path(path)
    info = read_manifest(path / "dataset.json", DatasetInfo)
    counts, checksums = info.get("splits", {}), info.get("checksums", {})
    files = {name: path / f"{name}.parquet" for name in SPLITS if (path / f"{name}.parquet").is_file()}
    splits = {name: _read_split(file) for name, file in files.items()}
    missing = sorted(set(counts) - set(splits))
    if missing or not splits:
        wanted = ", ".join(f"{name}.parquet" for name in missing or SPLITS)
        raise FileNotFoundError(f"{path} lacks {wanted}: a dataset directory must hold every split of dataset.json")
    for name, split in splits.items():
        expected = counts[name].get("queries", len(split)) if name in counts else len(split)
        if len(split) != expected:
            raise ValueError(
                f"{path / name}.parquet holds {len(split)} queries, dataset.json says {expected}: "
                "the files do not belong together; copy or build the dataset again"
            )
    for file in files.values():
        if file.name in checksums:
            check_sha256(file, checksums[file.name], "restore it, or build the dataset again")
    return splits


def load_split(path: str | os.PathLike[str], name: str) -> RetrievalDataset:
    """Read one split of a dataset directory; it raises the errors of `load_dataset_dir` too.

    Raises:
        ValueError: There is no such split; the message names the splits that exist.
    """
    splits = load_dataset_dir(path)
    if name not in splits:
        raise ValueError(f"{path} has no split {name!r}: choose from {', '.join(splits)}")
    return splits[name]


def save_dataset_dir(
    path: str | os.PathLike[str], splits: dict[str, RetrievalDataset], info: Mapping[str, Any]
) -> None:
    """Write a dataset directory, whole or not at all.

    Args:
        path: A directory that does not exist yet, or is empty.
        splits: At least one split, under the keys "train", "validation" and "test".
        info: The content of `dataset.json` (source, licence, builder ...). The counts of each split are added under
            "splits", the SHA-256 of each file under "checksums".

    Raises:
        FileExistsError: `path` is not empty.
        ValueError: There is no split, a split has another name, or a split has no queries.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise ValueError(f"splits are {sorted(splits)}: give at least one of {list(SPLITS)}")
    with atomic_directory(path) as folder:
        for name, split in splits.items():
            if not len(split):
                raise ValueError(f"split {name!r} has no queries: leave it out")
            # Ids and floats rarely repeat, so dictionary pages would only take space.
            pq.write_table(_to_table(split), folder / f"{name}.parquet", compression="zstd", use_dictionary=False)
        counts = {name: _counts(splits[name]) for name in SPLITS if name in splits}
        checksums = {file.name: file_checksum(file) for file in sorted(folder.glob("*.parquet"))}
        write_json(folder / "dataset.json", {**info, "splits": counts, "checksums": checksums})


def _counts(split: RetrievalDataset) -> dict[str, int]:
    documents = {document for targets in split.targets for cluster in targets for document in cluster}
    return {"queries": len(split), "targets": sum(map(len, split.targets)), "documents": len(documents)}


def _to_table(split: RetrievalDataset) -> pa.Table:
    columns: dict[str, pa.Array] = {"query_id": pa.array(split.query_ids, pa.string())}
    if split.queries is not None:
        columns["query"] = pa.array(split.queries, pa.string())
    if split.input_vectors is not None:
        values = np.ascontiguousarray(split.input_vectors).reshape(-1)
        columns["query_vector"] = pa.FixedSizeListArray.from_arrays(pa.array(values), split.input_vectors.shape[1])
    columns["targets"] = pa.array(split.targets, CLUSTERS)
    columns["answers"] = pa.array(split.answers, CLUSTERS)
    if split.spans is not None:
        columns["spans"] = pa.array(split.spans, SPANS)
    return pa.table(columns)


def _read_split(file: Path) -> RetrievalDataset:
    """Read one split from its parquet file; every error names the file."""
    try:
        table = read_parquet(file)
        names = set(table.column_names)
        missing = {"query_id", "targets", "answers"} - names
        if missing or not names & {"query", "query_vector"}:
            wanted = "query_id, targets, answers, and query or query_vector (or both)"
            raise ValueError(f"columns are {sorted(names)}: the file needs {wanted}")
        query_ids = _strings(table, "query_id")
        return RetrievalDataset(
            query_ids=query_ids,
            targets=_nested(table, "targets", CLUSTERS),
            answers=_nested(table, "answers", CLUSTERS),
            queries=_strings(table, "query") if "query" in names else None,
            input_vectors=_read_vectors(query_ids, table["query_vector"]) if "query_vector" in names else None,
            spans=_nested(table, "spans", SPANS) if "spans" in names else None,
        )
    except (ValueError, pa.ArrowInvalid) as error:
        raise ValueError(f"{file}: {error}") from error


def _strings(table: pa.Table, name: str) -> list[str]:
    return string_column(table, name, "the table", whole_numbers=name == "query_id").to_pylist()


def _nested(table: pa.Table, name: str, wanted: pa.DataType) -> list[list[list[Any]]]:
    try:
        return table[name].cast(wanted).to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        kind = table.schema.field(name).type
        shown = f"list<list<{wanted.value_type.value_type}>>"
        raise ValueError(f"column {name!r} is {kind}: it must be {shown}") from error


def _read_vectors(query_ids: list[str], column: pa.ChunkedArray) -> np.ndarray:
    """Convert a list or fixed-size list column of floats to `(queries, dim)` float32."""
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"column 'query_vector' is {kind}: it must be a list of float32")
    array = column.combine_chunks()
    lengths = array.value_lengths().to_pylist()
    for query_id, length in zip(query_ids, lengths, strict=True):
        if length is None or length != lengths[0]:
            raise ValueError(f"query {query_id!r} has a query_vector of length {length}, the first has {lengths[0]}")
    values = array.flatten()
    if values.null_count:
        raise ValueError("column 'query_vector' holds null numbers: every number must be given")
    return values.to_numpy().astype(np.float32).reshape(len(query_ids), -1)


def _check_columns(split: RetrievalDataset) -> None:
    if split.queries is None and split.input_vectors is None:
        raise ValueError("neither queries nor input_vectors are given: give texts, vectors or both")
    for name in ("targets", "answers", "queries", "input_vectors", "target_rows", "spans"):
        column = getattr(split, name)
        if column is not None and len(column) != len(split.query_ids):
            raise ValueError(f"{len(split.query_ids)} query ids but {len(column)} {name}: give one per query")


def _check_query_ids(query_ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for position, query_id in enumerate(query_ids):
        if not isinstance(query_id, str) or not query_id:
            raise ValueError(f"query number {position} has the query_id {query_id!r}: it must be a non-empty string")
        if query_id in seen:
            raise ValueError(f"query_id {query_id!r} is used twice: query ids are unique within a split")
        seen.add(query_id)


def _check_targets(query_id: str, targets: list[list[str]], answers: list[list[str]]) -> None:
    if not targets:
        raise ValueError(f"query {query_id!r} has no targets: drop it or give at least one cluster of document ids")
    for cluster in targets:
        if not cluster or not all(isinstance(document, str) and document for document in cluster):
            raise ValueError(f"query {query_id!r} has the target {cluster!r}: give a non-empty list of document ids")
    if answers is None or len(answers) not in (0, len(targets)):
        raise ValueError(
            f"query {query_id!r} has {len(targets)} targets but answers {answers!r}: "
            "give one list of aliases per target, or an empty list"
        )
    for aliases in answers:
        if aliases is None or not all(isinstance(alias, str) for alias in aliases):
            raise ValueError(f"query {query_id!r} has the aliases {aliases!r}: they must be a list of strings")


def _check_texts(query_ids: Sequence[str], queries: Sequence[str]) -> None:
    for query_id, query in zip(query_ids, queries, strict=True):
        if not isinstance(query, str) or not query.strip():
            raise ValueError(f"query {query_id!r} has the text {query!r}: it must be a non-empty string")
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"query {query_id!r} is not valid Unicode ({error}): read its source as UTF-8") from error


def _check_vectors(query_ids: Sequence[str], vectors: np.ndarray) -> None:
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype != np.float32:
        raise ValueError(f"input_vectors are {vectors.dtype} {vectors.shape}: they must be float32 (queries, dim)")
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if bad.size:
        raise ValueError(f"query {query_ids[bad[0]]!r} has a zero vector, or a vector with NaN or infinity")


def _check_spans(split: RetrievalDataset) -> None:
    if split.queries is None:
        raise ValueError("spans are given, but no queries: a span is a part of a query's text")
    for query_id, query, targets, spans in zip(
        split.query_ids, split.queries, split.targets, split.spans or [], strict=True
    ):
        if spans is None or len(spans) not in (0, len(targets)):
            raise ValueError(
                f"query {query_id!r} has {len(targets)} targets but spans {spans!r}: give one span per target, or an "
                "empty list"
            )
        for span in spans:
            if span is None or len(span) != 2 or None in span or not 0 <= span[0] < span[1] <= len(query):
                raise ValueError(
                    f"query {query_id!r} has the span {span!r}: a span is [start, end] with 0 <= start < end <= "
                    f"{len(query)}, the length of the query"
                )
