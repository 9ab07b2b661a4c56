"""A corpus on disk as an Arrow table: memory-mapped where it is in Arrow files, so that any size of corpus opens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amer.checksums import check_once, check_sha256
from amer.corpus.table import COLUMNS
from amer.files import inside
from amer.manifests import check_fields, read_manifest
from amer.text_lines import read_objects

JSON_LINES = (".jsonl", ".jsonl.gz")
PARTS_FILE = "documents.json"  # written last: it says that every part is there
ADVICE = "restore it or build the corpus again"


def open_documents(path: str | os.PathLike[str]) -> pa.Table:
    """Open a corpus: columns `id`, `title`, `text`, all strings; others are metadata, for filters.

    A mapped file that is damaged would end the process. So the checksum of each part is compared first, and a file
    without one is validated, which takes as long as reading it. More than 256 MB are checked once (`check_once`).

    Args:
        path: a folder of `part-*.arrow` files with its `documents.json`, or one `.arrow` file: memory-mapped, nothing
            is read into memory; or a `.parquet`, `.jsonl` or `.jsonl.gz` file, which is read. A line of JSON may lack
            the title, and its id may be a whole number.

    Raises:
        FileNotFoundError: there is nothing at `path`, or the folder's parts are not all there.
        OSError: a file is truncated, damaged, or of another format.
        ValueError: `path` is none of these, a line is not JSON, or a column is missing, not of strings, or null.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder of Arrow parts, or a .parquet or .jsonl file")
    if path.is_dir():
        table = _open_parts(path)
    elif path.name.endswith(JSON_LINES):
        table = _read_json_lines(path)
    elif path.suffix == ".arrow":
        check_once([path], "valid", lambda: _validate(path))
        table = map_arrow(path)
    elif path.suffix == ".parquet":
        table = _read_parquet(path)
    else:
        raise ValueError(f"{path} is no corpus: give a folder of Arrow parts, or an .arrow, .parquet or .jsonl file")
    return _checked(table, path)


def take_documents(documents: pa.Table, rows: np.ndarray) -> list[dict[str, str]]:
    """The documents of `(n,)` rows, in the order given: `[{"id", "title", "text"}]`.

    Taken chunk by chunk: `pa.Table.take` would first copy the chunks of the whole corpus into one.

    Args:
        documents: as `open_documents` gives it.
        rows: any order, repeats allowed; -1 (padding) is no document and is refused.

    Raises:
        IndexError: a row is not in the corpus.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not rows.size:
        return []
    if rows.min() < 0 or rows.max() >= documents.num_rows:
        raise IndexError(f"rows must lie in 0..{documents.num_rows - 1}, got {rows.min()}..{rows.max()}")
    batches = [batch for batch in documents.select(COLUMNS).to_batches() if batch.num_rows]
    ends = np.cumsum([batch.num_rows for batch in batches])
    unique, places = np.unique(rows, return_inverse=True)
    hit, starts = np.unique(np.searchsorted(ends, unique, side="right"), return_index=True)
    records: list[dict[str, str]] = []
    for index, wanted in zip(hit, np.split(unique, starts[1:]), strict=True):
        batch = batches[index]
        records += batch.take(pa.array(wanted - (ends[index] - batch.num_rows))).to_pylist()
    return [records[place] for place in places]


def _open_parts(folder: Path) -> pa.Table:
    """The parts that `documents.json` names, one after another."""
    listing = folder / PARTS_FILE
    if not listing.is_file():
        raise FileNotFoundError(
            f"{folder} has no {PARTS_FILE}, so it is no finished corpus: build it again, it resumes where it stopped"
        )
    parts = read_parts(listing)
    files = {str(inside(folder, part["file"])): part for part in parts}
    for file in files:
        _check_there(Path(file))
    check_once([listing, *map(Path, files)], "parts", lambda: _check_parts(files))
    tables = []
    for name, part in files.items():
        tables.append(map_arrow(Path(name)))
        if tables[-1].num_rows != part["documents"]:
            raise ValueError(
                f"{name} holds {tables[-1].num_rows} documents, {PARTS_FILE} says "
                f"{part['documents']}: they do not belong together, build the corpus again"
            )
    return pa.concat_tables(tables)


def read_parts(listing: Path) -> list[dict[str, Any]]:
    """What `documents.json` says of each part: `file`, `documents`, and `sha256` since checksums are kept.

    Raises:
        ValueError: the file does not say so; names the field.
    """
    parts: list[dict[str, Any]] = read_manifest(listing, {"parts": list})["parts"]
    if not parts:
        raise ValueError(f"{listing} names no parts: restore it, or build the corpus again")
    for number, part in enumerate(parts):
        check_fields(part, {"file": str, "documents": int}, f"{listing}, parts[{number}]", {"sha256": str})
    return parts


def _check_parts(files: Mapping[str, dict[str, Any]]) -> None:
    for name, part in files.items():
        if "sha256" in part:
            check_sha256(Path(name), part["sha256"], ADVICE)
        else:  # of a corpus that was built before checksums were kept
            _validate(Path(name))


def _validate(file: Path) -> None:
    """Look at every offset and every character: a wrong one would end the process, or be read as something else."""
    table = map_arrow(file)
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise OSError(f"{file} is damaged ({error}): {ADVICE}") from error


def map_arrow(file: Path) -> pa.Table:
    """Map an Arrow file into memory.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is truncated or of another format; values are not looked at.
    """
    _check_there(file)
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        table.column_names  # noqa: B018  (decodes them)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise OSError(f"{file} is truncated or no Arrow file ({error}): restore it or build it again") from error
    return table


def _check_there(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {ADVICE}")


def _read_parquet(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise OSError(f"{file} is truncated or no Parquet file ({error}): restore it or build it again") from error


def _read_json_lines(file: Path) -> pa.Table:
    """The documents of a JSONL file; what lines hold beside id, title and text is metadata."""
    records = []
    for place, record in read_objects(file):
        record = {"title": "", **record}
        if isinstance(record.get("id"), int):
            record["id"] = str(record["id"])
        wrong = [name for name in COLUMNS if not isinstance(record.get(name), str)]
        if wrong:
            raise ValueError(f"{place}: {wrong[0]} is {record.get(wrong[0])!r}: it must be a text")
        records.append(record)
    names = dict.fromkeys((*COLUMNS, *(name for record in records for name in record)))
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array(
                [record.get(name) for record in records], pa.string() if name in COLUMNS else None
            )
        except pa.ArrowException as error:
            raise ValueError(f"{file}: the values of {name!r} are not of one type ({error})") from error
    return pa.table(columns)


def _checked(table: pa.Table, path: Path) -> pa.Table:
    """The table, if its three columns are there, strings, and nowhere null; else ValueError."""
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(f"{path} lacks the column(s) {', '.join(missing)}; needed: {', '.join(COLUMNS)}")
    for name in COLUMNS:
        column = table.column(name)
        if column.type not in (pa.string(), pa.large_string()) or column.null_count:
            found = f"{column.type} with {column.null_count} nulls"
            raise ValueError(f"{path}: column {name!r} is {found}; it must hold a string everywhere, if an empty one")
    return table
