"""Open a corpus on disk as an Arrow table. Arrow files are memory-mapped, so a corpus may be larger than memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
import pyarrow as pa
from pydantic import Field
from typing_extensions import TypedDict

from amer.checksums import check_once, check_sha256
from amer.corpus.table import COLUMNS, with_texts
from amer.files import damage_named, inside, read_manifest, read_parquet
from amer.text_lines import id_text, read_objects

JSON_LINES = (".jsonl", ".jsonl.gz")
PARTS_FILE = "documents.json"  # written last: its presence means that all parts exist
ADVICE = "restore it or build the corpus again"


class Part(TypedDict):
    """A file of a corpus."""

    file: str
    documents: Annotated[int, Field(ge=0)]
    sha256: NotRequired[str]


class Parts(TypedDict):
    """Contents of `documents.json`."""

    parts: Annotated[list[Part], Field(min_length=1)]


def open_documents(path: str | os.PathLike[str]) -> pa.Table:
    """Open a corpus with the string columns `id`, `title` and `text`. Other columns are metadata, for filters.

    Access to a damaged memory-mapped file would crash the process. So the checksum of each part is compared first. A
    file without a checksum is validated, which takes as long as reading it. Above 256 MB this is done only once (see
    `check_once`).

    Args:
        path: A folder of `part-*.arrow` files with its `documents.json`, or an `.arrow` file: both are memory-mapped.
            Or a `.parquet`, `.jsonl` or `.jsonl.gz` file, which is read into memory. A JSON line may lack the title,
            and its ID may be an integer.

    Raises:
        FileNotFoundError: `path` does not exist, or parts of the folder are missing.
        OSError: A file is truncated, damaged or of another format.
        ValueError: `path` is of another kind, a line is not JSON, or a column is missing, has nulls or does not hold
            strings (see `with_texts`).
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a folder of Arrow parts, or a .parquet or .jsonl file")
    if path.is_dir():
        table = _open_parts(path)
    elif path.name.lower().endswith(JSON_LINES):
        table = _read_json_lines(path)
    elif path.suffix.lower() == ".arrow":
        check_once([path], "valid", lambda: _validate(path))
        table = map_arrow(path)
    elif path.suffix.lower() == ".parquet":
        table = read_parquet(path)
    else:
        raise ValueError(
            f"{path} is not a corpus: give a folder of Arrow parts, or an .arrow, .parquet or .jsonl file"
        )
    return with_texts(table, str(path))


def take_documents(documents: pa.Table, rows: np.ndarray) -> list[dict[str, str]]:
    """Return the documents of `(n,)` rows in the given order: `[{"id", "title", "text"}]`.

    Reads chunk by chunk, because `pa.Table.take` would first copy the whole corpus into one chunk.

    Args:
        documents: A corpus from `open_documents`.
        rows: Rows in any order, repeats allowed. -1 (padding) is refused.

    Raises:
        IndexError: A row is not in the corpus.
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
    """Open the parts that `documents.json` names and concatenate them."""
    listing = folder / PARTS_FILE
    if not listing.is_file():
        raise FileNotFoundError(
            f"{folder} has no {PARTS_FILE}, so it is not a finished corpus: build it again to resume where it stopped"
        )
    files = {str(inside(folder, part["file"])): part for part in read_manifest(listing, Parts)["parts"]}
    if missing := [name for name in files if not Path(name).is_file()]:
        raise FileNotFoundError(f"{missing[0]} is missing: {ADVICE}")
    check_once([listing, *map(Path, files)], "parts", lambda: _check_parts(files))
    tables = []
    for name, part in files.items():
        tables.append(map_arrow(Path(name)))
        if tables[-1].num_rows != part["documents"]:
            raise ValueError(
                f"{name} holds {tables[-1].num_rows} documents, but {PARTS_FILE} says "
                f"{part['documents']}: they do not belong together, build the corpus again"
            )
    if any(table.schema != tables[0].schema for table in tables):
        raise ValueError(f"{folder}: its parts have different columns, build the corpus again")
    return pa.concat_tables(tables)


def _check_parts(files: Mapping[str, Part]) -> None:
    for name, part in files.items():
        if "sha256" in part:
            check_sha256(Path(name), part["sha256"], ADVICE)
        else:  # older corpora have no checksums
            _validate(Path(name))


def _validate(file: Path) -> None:
    """Check all offsets and characters: a wrong one would crash the process or give wrong text."""
    table = map_arrow(file)
    with damage_named(file, "Arrow"):
        table.validate(full=True)


def map_arrow(file: Path) -> pa.Table:
    """Memory-map an Arrow file. Does not check its values.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file is truncated or of another format.
    """
    # Closed here, not when Arrow's threads let go of it. The mapping stays as long as the table.
    with damage_named(file, "Arrow"), pa.memory_map(str(file)) as source:
        table = pa.ipc.open_file(source).read_all()
        table.column_names  # noqa: B018  (decodes the names)
        return table


def _read_json_lines(file: Path) -> pa.Table:
    """Read the documents of a JSONL file. Fields other than id, title and text are metadata."""
    records = []
    for place, record in read_objects(file):
        try:
            record = {"title": "", **record, "id": id_text(record.get("id"))}
        except TypeError as error:
            raise ValueError(f"{place}: {error}") from error
        wrong = [name for name in COLUMNS if not isinstance(record.get(name), str)]
        if wrong:
            raise ValueError(f"{place}: {wrong[0]} is {record.get(wrong[0])!r}: it must be a string")
        records.append(record)
    names = dict.fromkeys((*COLUMNS, *(name for record in records for name in record)))
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array(
                [record.get(name) for record in records], pa.string() if name in COLUMNS else None
            )
        except pa.ArrowException as error:
            raise ValueError(
                f"{file}: the values of {name!r} have different types, give all the same type ({error})"
            ) from error
    return pa.table(columns)
