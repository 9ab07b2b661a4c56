"""The Wikipedia corpus of the paper: converts the passages published with QAMPARI to Arrow files, chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm
from typing_extensions import TypedDict

import amer
from amer.checksums import file_checksum
from amer.corpus.documents import PARTS_FILE, map_arrow
from amer.corpus.table import COLUMNS, repeated_ids
from amer.data.building import DROPPED_FILE, WORK, DroppedRecords, remove_work
from amer.files import atomic_write, inside, read_json, read_manifest, remove_leftovers, write_json
from amer.text_lines import Place, parse_object, read_lines

SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
BATCH = 16_384  # passages held in memory
PAPER = {"documents": "roughly 25M", "words_per_document": 100}


class Chunk(TypedDict):
    """The origin of one part, as recorded in `documents.json`."""

    source: str
    bytes: int


class Chunks(TypedDict):
    """The origin of the corpus, as recorded in `documents.json`."""

    parts: list[Chunk]


def build_wikipedia(
    path: str | os.PathLike[str], chunks: str | os.PathLike[str], show_progress_bar: bool = True
) -> None:
    """Turn the published chunks into a corpus: `path/documents/`, for `open_documents` (paper §2 and A.3).

    Each chunk becomes one Arrow file, written whole or not at all. If a build is interrupted, call it again: it
    resumes, and writes the same bytes as an uninterrupted build. Memory holds a few thousand passages, and at the end
    all ids: 3 GB for 25 million.

    Passages without text are dropped: `documents.json` counts them, `dropped.jsonl` beside it lists them. The
    published text begins with the title; the title moves to a column of its own.

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        chunks: The folder of the `*.jsonl` (or `*.jsonl.gz`) files unpacked from QAMPARI's
            `chunked_wikipedia.tar.gz`; each line has an `id`, `contents` and `meta.title`.
        show_progress_bar: Show how many chunks are done.

    Raises:
        FileNotFoundError: There are no chunks.
        FileExistsError: `path` holds the corpus of other chunks.
        OSError: A chunk is truncated; the message names the file and the line.
        ValueError: A line is malformed, or two lines have the same id; the message names the file and the line.
    """
    path, files = Path(path), _chunk_files(Path(chunks))
    folder, work = path / "documents", path / WORK
    remove_leftovers(folder)
    remove_leftovers(work)
    if _is_built(folder, files):
        remove_work(path)
        return
    notes = []
    for index, file in enumerate(tqdm(files, desc="Reading", unit="chunk", disable=not show_progress_bar)):
        notes.append(_part(file, folder / f"part-{index:05d}.arrow", work / f"part-{index:05d}.json"))
    _check_ids(folder, files, notes)
    _finish(folder, notes)
    remove_work(path)


def _chunk_files(chunks: Path) -> list[Path]:
    files = sorted((*chunks.glob("*.jsonl"), *chunks.glob("*.jsonl.gz")))
    if not files:
        raise FileNotFoundError(f"{chunks} has no *.jsonl or *.jsonl.gz files: unpack chunked_wikipedia.tar.gz there")
    return files


def _identity(file: Path) -> dict[str, Any]:
    return {"source": file.name, "bytes": file.stat().st_size}


def _is_built(folder: Path, files: Sequence[Path]) -> bool:
    """Whether the corpus of these chunks exists already."""
    if not (folder / PARTS_FILE).is_file():
        return False
    there = [(part["source"], part["bytes"]) for part in read_manifest(folder / PARTS_FILE, Chunks)["parts"]]
    if there != [tuple(_identity(file).values()) for file in files]:
        raise FileExistsError(f"{folder} is the corpus of other chunks: choose another path or remove it")
    return True


def _part(file: Path, part: Path, note: Path) -> dict[str, Any]:
    """Write the Arrow file of a chunk, then a note that describes it; skip a chunk whose file and note are whole."""
    identity = _identity(file)
    if note.is_file() and part.is_file():
        written = read_json(note)
        if identity.items() <= written.items() and written.get("sha256") == file_checksum(part):
            return written
    drops, documents, words = DroppedRecords(), 0, 0
    passages = _passages(file, drops)
    with atomic_write(part) as temporary, pa.ipc.new_file(temporary, SCHEMA) as out:
        while batch := list(islice(passages, BATCH)):
            out.write_batch(pa.record_batch(list(zip(*batch, strict=True)), SCHEMA))
            documents += len(batch)
            words += sum(len(text.split()) for _, _, text in batch)
    written = {**identity, "file": part.name, "documents": documents, "sha256": file_checksum(part)}
    written |= {"words": words, "dropped": drops.records}
    write_json(note, written)
    return written


def _passages(file: Path, drops: DroppedRecords) -> Iterator[tuple[str, str, str]]:
    """Yield id, title and text of every passage that has a text."""
    place = None
    for place, line in read_lines(file):
        if not line.endswith("\n"):
            raise OSError(f"{place} has no line break: the chunk is cut short, download it again")
        name, title, text = _passage(line, place)
        if text:
            yield name, title, text
        else:
            drops.add("passage without text", place, id=name)
    if place is None:
        raise OSError(f"{file} is empty: the chunk is cut short, download it again")


def _passage(line: str, place: Place) -> tuple[str, str, str]:
    record = parse_object(line, place)
    meta = record.get("meta")
    name, contents = record.get("id"), record.get("contents")
    title = meta.get("title") if isinstance(meta, dict) else None
    if not (isinstance(name, str) and isinstance(contents, str) and isinstance(title, str) and name):
        raise ValueError(f"{place} must have an id, contents and meta.title, all strings: {line.strip()[:60]!r}")
    return name, title, f"{contents} ".removeprefix(f"{title} ").strip()


def _check_ids(folder: Path, files: Sequence[Path], notes: Sequence[dict[str, Any]]) -> None:
    """Raise a ValueError if an id repeats; it names the first two places."""
    ids = pa.concat_tables([map_arrow(inside(folder, note["file"])).select(["id"]) for note in notes]).column("id")
    repeated = repeated_ids(ids)
    if not len(repeated):
        return
    rows = pc.indices_nonzero(pc.equal(ids, repeated[0])).to_numpy()
    ends = np.cumsum([note["documents"] for note in notes])
    first, second = (_place(int(row), files, notes, ends) for row in rows[:2])
    raise ValueError(
        f"{second} has the id of {first}, {repeated[0].as_py()!r}; {len(repeated)} ids repeat: remove any chunk that "
        "is in the folder twice"
    )


def _place(row: int, files: Sequence[Path], notes: Sequence[dict[str, Any]], ends: np.ndarray) -> Place:
    """The file and line of the document in a row."""
    index = int(np.searchsorted(ends, row, side="right"))
    count, dropped = notes[index]["documents"], [record["line"] for record in notes[index]["dropped"]]
    lines = np.setdiff1d(np.arange(1, count + len(dropped) + 1), dropped)
    return Place(files[index], "line", int(lines[row - (ends[index] - count)]))


def _finish(folder: Path, notes: Sequence[dict[str, Any]]) -> None:
    """Write `dropped.jsonl`, then `documents.json`."""
    drops = DroppedRecords()
    for note in notes:
        drops.records += note["dropped"]
    drops.write(folder / DROPPED_FILE)
    for stray in {*folder.glob("part-*.arrow")} - {inside(folder, note["file"]) for note in notes}:
        stray.unlink()  # left by an abandoned build of more chunks
    documents = sum(note["documents"] for note in notes)
    info = {
        "source": "QAMPARI's chunked_wikipedia, English Wikipedia of 2021-08-01",
        "licence": "CC BY-SA 3.0",
        "builder": f"amer.data.wikipedia {amer.__version__}",
        "documents": documents,
        "words_per_document": round(sum(note["words"] for note in notes) / max(documents, 1), 2),
        "paper": PAPER,
        "drops": drops.counts(),
        "parts": [{key: note[key] for key in ("file", "documents", "sha256", "source", "bytes")} for note in notes],
    }
    write_json(folder / PARTS_FILE, info)
