"""Encode a corpus into a document store, shard by shard; an interrupted run resumes where it stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from amer.files import read_json, write_json
from amer.retrieval.store import (
    DOCUMENTS_FILE,
    STORE_FILE,
    DocumentStore,
    checked_documents,
    finish_store,
    open_shard,
    shard_count,
    shard_path,
    store_info,
    write_documents,
    write_shard,
)

RUN_FILE = "encoding.json"  # what an unfinished directory is becoming: store.json before its checksums
KILLED_WRITES = f".{'[0-9a-f]' * 32}.*"  # the temporary names of `amer.files`


class Encoder(Protocol):
    """What `encode_corpus` asks of an encoder; `DocumentEncoder` is one."""

    dim: int

    @property
    def identity(self) -> dict[str, Any]:
        """Name, revision and prompts."""

    def encode_documents(self, documents: pa.Table, batch_size: int) -> np.ndarray:
        """`(n, dim)` unit vectors of a table with `title` and `text`."""


def encode_corpus(
    documents: pa.Table,
    encoder: Encoder,
    path: str | os.PathLike[str],
    batch_size: int = 256,
    shard_size: int = 8_192,
    dtype: str = "float16",
    show_progress_bar: bool = True,
) -> DocumentStore:
    """Embed every document and write the store; done work is kept when the same call is made again.

    Every shard is written whole or not at all, and by itself, so a run killed at any moment and called again gives the
    same bytes as an unbroken one. A store already finished is opened and returned.

    Args:
        documents: columns `id`, `title`, `text`.
        encoder: the frozen document encoder; it forms batches by length within a shard.
        path: the store's directory: new, empty, or left by an earlier call with the same arguments.
        batch_size: documents embedded at a time.
        shard_size: documents per file, and the most work an interruption can lose.
        dtype: float16 or float32, on disk.
        show_progress_bar: show how many documents are done.

    Raises:
        ValueError: `path` holds another corpus, encoder, dtype or shard size; the documents break the contract.
        FileExistsError: `path` holds other files.
    """
    path = Path(path)
    documents = checked_documents(documents)
    info = store_info(documents, encoder.identity, encoder.dim, dtype, shard_size)
    _claim(path, info)
    if not (path / STORE_FILE).is_file():
        _encode_missing_shards(path, info, documents, encoder, batch_size, show_progress_bar)
        finish_store(path, info)
    (path / RUN_FILE).unlink(missing_ok=True)
    return DocumentStore.open(path)


def _claim(path: Path, info: dict[str, Any]) -> None:
    """Note in the directory what it is becoming, or check that it was becoming, or is, the same."""
    for leftover in path.glob(KILLED_WRITES):
        leftover.unlink()
    for name in (STORE_FILE, RUN_FILE):
        if (path / name).is_file():
            _check_same(path / name, read_json(path / name), info)
            return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} holds other files: encode into a new or empty directory")
    write_json(path / RUN_FILE, info)


def _check_same(file: Path, recorded: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    differing = [key for key, value in info.items() if recorded.get(key) != value]
    if differing:
        details = "; ".join(f"{key}: there {recorded.get(key)}, now {info[key]}" for key in differing)
        raise ValueError(f"{file} is of another store ({details}): encode into another directory")


def _encode_missing_shards(
    path: Path, info: dict[str, Any], documents: pa.Table, encoder: Encoder, batch_size: int, show_progress_bar: bool
) -> None:
    if not (path / DOCUMENTS_FILE).is_file():
        write_documents(path, documents)
    with tqdm(total=info["count"], desc="Encoding", unit="document", disable=not show_progress_bar) as progress:
        for index in range(shard_count(info)):
            part = documents.slice(index * info["shard_size"], info["shard_size"])
            if shard_path(path, info, index).is_file():
                open_shard(path, info, index)  # refuses a file damaged since
            else:
                write_shard(path, info, index, encoder.encode_documents(part, batch_size=batch_size))
            progress.update(part.num_rows)
