"""Build a FAISS index in a folder: train it, add the documents, and resume interrupted builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from tqdm import tqdm
from typing_extensions import TypedDict

from amer.checksums import check_once, check_sha256, file_checksum
from amer.corpus.store import DocumentStore
from amer.files import Count, read_manifest
from amer.locks import RUN_FILE, try_lock
from amer.search.index.exact import READ_ROWS
from amer.search.index.faiss.library import import_faiss, make_index, read_index, reason_of, write_index

INDEX_FILE, TRAINED_FILE, INFO_FILE = "index.faiss", "trained.faiss", "index.json"
TRAINED_OF_A_LIST = 40  # least number of documents per list that FAISS wants for training
LEAST_TRAINED = 65_536
MOST_TRAINED_BYTES = 2**32  # size of the training sample, float32


class Asked(TypedDict):
    """The kind of a finished or unfinished index, as its folder records it."""

    index: NotRequired[str]
    factory: NotRequired[str]


class IndexInfo(TypedDict):
    """Fields of `index.json` that are read back."""

    store: str
    factory: str
    width: int | None
    candidates: int
    recall: float
    bytes: Count
    k: NotRequired[Count]
    sha256: NotRequired[str]


def build_file(
    store: DocumentStore, directory: Path, factory: str, train_size: int | None, seed: int, show_progress_bar: bool
) -> None:
    """Write `index.faiss` into a shared folder, unless it exists. A resumed build uses the saved trained index.

    Raises:
        OSError: The disk is full, or another process is building the index.
        ValueError: FAISS does not know the index or cannot train it.
    """
    file, trained_file = directory / INDEX_FILE, directory / TRAINED_FILE
    with try_lock(file) as free:
        if not free:
            raise BlockingIOError(f"another process is building {file}: wait until it ends, then build again")
        if not file.is_file():
            trained = trained_file.is_file()
            index = read_index(trained_file, mapped=False) if trained else make_index(factory, store.dim)
            if not index.is_trained:
                train(index, store, train_size, seed)
                write_index(index, trained_file)
            add(index, store, show_progress_bar)
            write_index(index, file)
        trained_file.unlink(missing_ok=True)


def train(index: Any, store: DocumentStore, train_size: int | None, seed: int) -> None:
    """Train an index on a random sample of the store.

    Args:
        index: An empty index.
        store: The store that the index will hold.
        train_size: Size of the sample. Default: 65,536, or 40 per list if that is more, but at most 4 GiB of vectors.
        seed: Seed of the sample.

    Raises:
        ValueError: The sample is too small.
    """
    ivf = import_faiss().try_extract_index_ivf(index)
    wanted = max(LEAST_TRAINED, TRAINED_OF_A_LIST * (0 if ivf is None else ivf.nlist))
    wanted = min(wanted, MOST_TRAINED_BYTES // (4 * store.dim))
    sample = sample_rows(store, wanted if train_size is None else train_size, seed)
    try:
        index.train(store.vectors(sample))
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot train the index on {len(sample)} documents: {reason_of(error)}") from error


def add(index: Any, store: DocumentStore, show_progress_bar: bool) -> None:
    """Add the whole store, block by block. The IDs are the row numbers."""
    with tqdm(total=len(store), desc="Indexing", unit="document", disable=not show_progress_bar) as progress:
        for _, block in store.blocks(READ_ROWS):
            index.add(block.astype(np.float32, copy=False))
            progress.update(len(block))


def sample_rows(store: DocumentStore, size: int, seed: int) -> np.ndarray:
    """Draw random rows of a store, ascending and without repeats; all rows if the store has no more than `size`.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"a sample must have at least 1 document, got {size}")
    chosen = np.random.default_rng(seed).choice(len(store), min(size, len(store)), replace=False)
    return np.sort(chosen)


def recorded_factory(directory: Path, index: str) -> str | None:
    """Return the factory string that a preset stood for when the build began. Available memory may have changed."""
    for name in (INFO_FILE, RUN_FILE):
        if (directory / name).is_file():
            recorded = read_manifest(directory / name, Asked)
            return recorded.get("factory") if recorded.get("index") == index else None
    return None


def checked_info(store: DocumentStore, directory: Path) -> dict[str, Any]:
    """Read `index.json` of a folder, and compare the checksum of the index (`check_index`).

    Raises:
        FileNotFoundError: There is no `index.json`: the index is not finished.
        OSError: The index has another size or checksum.
        ValueError: The index belongs to another store, or `index.json` is invalid.
    """
    if not (directory / INFO_FILE).is_file():
        raise FileNotFoundError(
            f"{directory} has no {INFO_FILE}, so it holds no finished index: run FaissIndex.build with the same "
            "arguments to resume"
        )
    info = {**read_manifest(directory / INFO_FILE, IndexInfo)}
    if info["store"] != store.identity:
        raise ValueError(
            f"{directory} holds the index of another store than {store.path}, or of that store before it was encoded "
            "again: build an index in another folder"
        )
    file = directory / INDEX_FILE
    if file.is_file() and file.stat().st_size != info["bytes"]:
        raise OSError(
            f"{file} has {file.stat().st_size} bytes, expected {info['bytes']}: restore it or build it again"
        )
    check_index(directory, info)
    return info


def check_index(directory: Path, info: Mapping[str, Any]) -> None:
    """Compare `index.faiss` with its checksum in `index.json`; above 256 MB only once (see `check_once`).

    Raises:
        OSError: The file is damaged.
    """
    file, recorded = directory / INDEX_FILE, info.get("sha256")
    if recorded is not None and file.is_file():  # version 0.1.0 recorded none
        check_once([file], str(recorded), lambda: check_sha256(file, recorded, "delete it and build the index again"))


def recorded_checksum(directory: Path) -> dict[str, str]:
    """Return the checksum of `index.faiss`. If `index.json` already records one, compare it first.

    Raises:
        OSError: The file was damaged after it was finished.
    """
    if (directory / INFO_FILE).is_file():
        check_index(directory, read_manifest(directory / INFO_FILE, IndexInfo))
    return {"sha256": file_checksum(directory / INDEX_FILE)}
