"""A run: the ranked lists of one system for the questions of one split, saved so that no search is repeated.

A folder holds `run.parquet` (all lists), `run.trec` (for TREC tools), `run.json` (a description) and, if they were
given, `query_embeddings.npy`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from amer.evaluation.ranking import checked_lists
from amer.files import Count, atomic_directory, open_npy, read_manifest, read_parquet, write_json

if TYPE_CHECKING:
    from amer.corpus.store import DocumentStore
    from amer.search.fusion import Fused

IDENTITY = (
    "documents_sha256",
    "count",
    "encoder",
    "dim",
)  # fields of `store.json` that identify the store of the rows


class RunInfo(TypedDict):
    """The fields of `run.json` that this package reads."""

    name: str
    queries: Count
    k: Count
    query_embeddings: list[int] | None
    store: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """The documents that one system retrieved.

    Attributes:
        name: Name of the system.
        query_ids: One unique id per query.
        rows: `(q, k)` int64 rows of the store, best first, distinct in each list; -1 is padding, at the end.
        scores: `(q, k)` float32; after round-robin fusion they do not descend.
        found_by: `(q, k)` int64, number from 0 of the query vector that found the document first; None if m is 1.
        query_embeddings: `(q, m, dim)` float16, the query vectors of the search, or None.

    Raises:
        ValueError: An array does not fit this description; the message names it.
    """

    name: str
    query_ids: list[str]
    rows: np.ndarray
    scores: np.ndarray
    found_by: np.ndarray | None = None
    query_embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("the run has no name: give the name of its system")
        if not all(self.query_ids) or len(set(self.query_ids)) != len(self.query_ids):
            raise ValueError(f"the query ids of run {self.name!r} must be unique and not empty")
        if not checked_lists(self.rows).size:
            raise ValueError(f"run {self.name!r} is empty: give at least one query and one row per list")
        lists = (len(self.query_ids), self.rows.shape[1])
        _check_array("rows", self.rows, lists, np.int64)
        _check_array("scores", self.scores, lists, np.float32)
        if np.isnan(self.scores).any():
            raise ValueError(f"run {self.name!r} has scores that are not numbers")
        if self.found_by is not None:
            _check_array("found_by", self.found_by, lists, np.int64)
        if self.query_embeddings is not None:
            _check_array("query_embeddings", self.query_embeddings, (lists[0], None, None), np.float16)

    @classmethod
    def from_fused(
        cls, name: str, query_ids: list[str], fused: Fused, query_embeddings: np.ndarray | None = None
    ) -> Run:
        """Make a run of fused lists; `query_embeddings (q, m, dim)` are stored in half precision.

        Raises:
            ValueError: The number of lists differs from the number of query ids.
        """
        if query_embeddings is not None:
            query_embeddings = np.asarray(query_embeddings).astype(np.float16)
        return cls(name, list(query_ids), fused.rows, fused.scores, fused.found_by, query_embeddings)

    def save(self, folder: str | os.PathLike[str], store: DocumentStore) -> None:
        """Write the folder, whole or not at all.

        `run.parquet` has `query_id`, `rank` from 1, `document_id` (null for padding), `score` and, if known,
        `found_by`. `run.trec` has the lines `qid Q0 docid rank score tag`, without padding. In ids and name, white
        space and `%` are percent-encoded; `urllib.parse.unquote` decodes them. TREC tools order by score, so the score
        in `run.trec` is k - rank, which keeps the order of fused lists. The real score is in the parquet file.

        Args:
            folder: A folder that does not exist yet, or is empty.
            store: The store that the rows belong to.

        Raises:
            FileExistsError: `folder` is not empty.
            ValueError: The store lacks some rows, or a document's id is the empty string.
        """
        if self.rows.size and self.rows.max() >= len(store):
            raise ValueError(f"run {self.name!r} holds row {self.rows.max()}, {store.path} has {len(store)} documents")
        document_ids = store.ids.take(pa.array(self.rows.reshape(-1), mask=self.rows.reshape(-1) < 0))
        queries, k = self.rows.shape
        columns = {
            "query_id": np.repeat(np.array(self.query_ids, dtype=object), k),
            "rank": np.tile(np.arange(1, k + 1), queries),
            "document_id": document_ids,
            "score": self.scores.reshape(-1),
        }
        if self.found_by is not None:
            columns["found_by"] = self.found_by.reshape(-1)
        with atomic_directory(folder) as temporary:
            pq.write_table(pa.table(columns), temporary / "run.parquet", compression="zstd")
            with (temporary / "run.trec").open("w", encoding="utf-8") as lines:
                lines.writelines(self._trec_lines(document_ids.to_pylist()))
            if self.query_embeddings is not None:
                np.save(temporary / "query_embeddings.npy", self.query_embeddings, allow_pickle=False)
            write_json(temporary / "run.json", self._description(store))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], store: DocumentStore) -> Run:
        """Read a saved run.

        Args:
            folder: A folder written by `save`.
            store: The store the run was saved with, or one of the same documents and encoder.

        Raises:
            FileNotFoundError: The folder or one of its files is missing.
            OSError: A file is truncated or damaged.
            ValueError: The run belongs to another store, or the files do not belong together.
        """
        folder = Path(folder)
        info = read_manifest(folder / "run.json", RunInfo)
        _check_store(folder, info["store"], store)
        shape, embeddings = (info["queries"], info["k"]), None
        table = read_parquet(folder / "run.parquet")
        if info["query_embeddings"]:
            embeddings = np.array(open_npy(folder / "query_embeddings.npy"))
        if table.num_rows != shape[0] * shape[1]:
            raise ValueError(f"{folder}: run.parquet has {table.num_rows} places, run.json says {shape}: search again")
        rows = np.full(table.num_rows, -1, dtype=np.int64)
        found = table["document_id"].is_valid().to_numpy()
        rows[found] = store.rows_of(table["document_id"].drop_null().to_pylist())
        return cls(
            name=info["name"],
            query_ids=table["query_id"].to_pylist()[:: shape[1]],
            rows=rows.reshape(shape),
            scores=table["score"].to_numpy().reshape(shape),
            found_by=table["found_by"].to_numpy().reshape(shape) if "found_by" in table.column_names else None,
            query_embeddings=embeddings,
        )

    def _trec_lines(self, document_ids: list[str | None]) -> Iterator[str]:
        """Yield the lines of `run.trec`; `document_ids` holds the ids of all lists, one list after the other."""
        k, tag = self.rows.shape[1], trec_word(self.name)
        for place, document_id in enumerate(document_ids):
            if document_id is not None:
                query, rank = trec_word(self.query_ids[place // k]), place % k + 1
                yield f"{query} Q0 {trec_word(document_id)} {rank} {k - rank} {tag}\n"

    def _description(self, store: DocumentStore) -> dict[str, Any]:
        """The content of `run.json`."""
        embeddings = None if self.query_embeddings is None else list(self.query_embeddings.shape)
        return {
            "name": self.name,
            "queries": self.rows.shape[0],
            "k": self.rows.shape[1],
            "documents": int((self.rows >= 0).sum()),
            "query_embeddings": embeddings,
            "store": _identity(store),
        }


def trec_word(text: str) -> str:
    """Percent-encode white space and `%` of an id for a TREC file; `urllib.parse.unquote` decodes it.

    Raises:
        ValueError: The id is the empty string.
    """
    if not text:
        raise ValueError("an id is the empty string, which a TREC file cannot hold: give the query or document an id")
    return re.sub(r"[%\s]", lambda found: quote(found[0], safe=""), text)


def _identity(store: DocumentStore) -> dict[str, Any]:
    return {key: store.info.get(key) for key in IDENTITY}


def _check_store(folder: Path, saved: dict[str, Any], store: DocumentStore) -> None:
    """Raise a ValueError if the run was saved with another store."""
    own = _identity(store)
    differing = [key for key in IDENTITY if saved.get(key) != own[key]]
    if differing:
        details = "; ".join(f"{key} {saved.get(key)!r}, not {own[key]!r}" for key in differing)
        raise ValueError(
            f"{folder} is a run on another store than {store.path} ({details}): open the store of the run"
        )


def _check_array(name: str, array: np.ndarray, shape: tuple[int | None, ...], dtype: type) -> None:
    """Raise a ValueError unless the array has the dtype and the shape, where None is any size."""
    given, kind = np.shape(array), getattr(array, "dtype", None)
    fits = len(given) == len(shape) and all(size in (None, own) for size, own in zip(shape, given, strict=True))
    if not fits or kind != dtype:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must be {np.dtype(dtype)} ({wanted}), got {kind} {given}")
