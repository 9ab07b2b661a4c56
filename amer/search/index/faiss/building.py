"""Build an index of FAISS in a folder: train, fill, and go on where it broke off."""

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
TRAINED_OF_A_LIST = 40  # documents that FAISS wants at least to find a list's centre
LEAST_TRAINED = 65_536
MOST_TRAINED_BYTES = 2**32  # of the sample, float32


class Asked(TypedDict):
    """What an index that is finished or begun says of its kind."""

    index: NotRequired[str]
    factory: NotRequired[str]


class IndexInfo(TypedDict):
    """What `index.json` says that is read again."""

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
    """Write `index.faiss` into a shared folder, unless it is there; a trained index that was not filled is kept.

    Raises:
        OSError: the disk is full; another process is at it.
        ValueError: FAISS does not know the index or cannot train it.
    """
    file, trained_file = directory / INDEX_FILE, directory / TRAINED_FILE
    with try_lock(file) as free:
        if not free:
            raise BlockingIOError(f"another process is building {file}: wait for it, and build again")
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
    """Train on a random sample of the store.

    Args:
        index: empty.
        store: what it will hold.
        train_size: documents; by default 65,536, or 40 for every list if that is more, but no more than 4 GiB of them.
        seed: of the sample.

    Raises:
        ValueError: the sample is too small.
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
    """Add the whole store, block by block; row numbers are the ids."""
    with tqdm(total=len(store), desc="Indexing", unit="document", disable=not show_progress_bar) as progress:
        for _, block in store.blocks(READ_ROWS):
            index.add(block.astype(np.float32, copy=False))
            progress.update(len(block))


def sample_rows(store: DocumentStore, size: int, seed: int) -> np.ndarray:
    """Random rows of a store, ascending, each once; all of them if there are no more.

    Raises:
        ValueError: fewer than one wanted.
    """
    if size < 1:
        raise ValueError(f"a sample must have at least 1 document, got {size}")
    chosen = np.random.default_rng(seed).choice(len(store), min(size, len(store)), replace=False)
    return np.sort(chosen)


def recorded_factory(directory: Path, index: str) -> str | None:
    """What a preset was taken to be when this folder was begun: the memory available may be another by now."""
    for name in (INFO_FILE, RUN_FILE):
        if (directory / name).is_file():
            recorded = read_manifest(directory / name, Asked)
            return recorded.get("factory") if recorded.get("index") == index else None
    return None


def checked_info(store: DocumentStore, directory: Path) -> dict[str, Any]:
    """`index.json` of a folder, after a look at the checksum of the index beside it (`check_index`).

    Raises:
        FileNotFoundError: there is none: the index has not been finished.
        OSError: the index beside it has another length or checksum.
        ValueError: it is of another store, or does not describe an index.
    """
    if not (directory / INFO_FILE).is_file():
        raise FileNotFoundError(
            f"{directory} has no {INFO_FILE}, so it holds no finished index: run FaissIndex.build with the same "
            "arguments, it goes on where it stopped"
        )
    info = {**read_manifest(directory / INFO_FILE, IndexInfo)}
    if info["store"] != store.identity:
        raise ValueError(
            f"{directory} is an index of another store than {store.path}, or of what that was before it was encoded "
            "again: build one in another folder"
        )
    file = directory / INDEX_FILE
    if file.is_file() and file.stat().st_size != info["bytes"]:
        raise OSError(
            f"{file} has {file.stat().st_size} bytes, expected {info['bytes']}: restore it or build it again"
        )
    check_index(directory, info)
    return info


def check_index(directory: Path, info: Mapping[str, Any]) -> None:
    """Compare `index.faiss` with the checksum that `index.json` holds; more than 256 MB once (see `check_once`).

    Raises:
        OSError: it is damaged.
    """
    file, recorded = directory / INDEX_FILE, info.get("sha256")
    if recorded is not None and file.is_file():  # indexes of 0.1.0 have none
        check_once([file], str(recorded), lambda: check_sha256(file, recorded, "delete it and build the index again"))


def recorded_checksum(directory: Path) -> dict[str, str]:
    """The checksum of a finished `index.faiss`; of one that was finished before, after comparing it with that.

    Raises:
        OSError: it was damaged since.
    """
    if (directory / INFO_FILE).is_file():
        check_index(directory, read_manifest(directory / INFO_FILE, IndexInfo))
    return {"sha256": file_checksum(directory / INDEX_FILE)}
