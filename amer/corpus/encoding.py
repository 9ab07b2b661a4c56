"""Encode a corpus into a document store, shard by shard; an interrupted run resumes where it stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from amer.corpus.shards import Shards
from amer.corpus.store import (
    DOCUMENTS_FILE,
    STORE_FILE,
    DocumentStore,
    embedding_shards,
    store_info,
    write_documents,
)
from amer.corpus.table import check_ids, checked_documents
from amer.locks import share_directory, try_lock


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
    worker: int = 0,
    num_workers: int = 1,
) -> DocumentStore | None:
    """Embed every document and write the store; done work is kept when the same call is made again.

    Every shard is written whole or not at all, and by itself, so a run killed at any moment and called again gives the
    same bytes as an unbroken one. A store already finished is opened and returned.

    Several processes that see the same directory share the work: each makes this call with a number of its own. Who
    finds every shard there finishes the store. What some began, any other number of workers can bring to the end. A
    shard that another process is encoding at the moment is left to it, so that the same call made twice at a time
    shares the work too.

    Args:
        documents: columns `id`, `title`, `text`, and metadata; all of them, whatever the worker.
        encoder: the frozen document encoder; it forms batches by length within a shard.
        path: the store's directory: new, empty, or left by an earlier call with the same arguments.
        batch_size: documents embedded at a time.
        shard_size: documents per file, and the most work an interruption can lose.
        dtype: float16 or float32, on disk.
        show_progress_bar: show how many documents are done.
        worker: encodes every `num_workers`-th shard, from the one of this number on.
        num_workers: how many processes share the work.

    Returns:
        the store; None while shards of other workers are missing, or another process is still at work.

    Raises:
        ValueError: `path` holds another corpus, encoder, dtype or shard size; the documents break the contract.
        FileExistsError: `path` holds other files.
        OSError: the disk is full, or a file was damaged since it was written; names the file.
    """
    encoding = CorpusEncoding.prepare(documents, encoder, path, batch_size, shard_size, dtype)
    with encoding.share_directory():
        encoding.encode(encoding.shards.of_worker(worker, num_workers), show_progress_bar)
        finished = finish_store(encoding.path, encoding.documents, encoding.info)
    return DocumentStore.open(path) if finished else None


@dataclass(frozen=True)
class CorpusEncoding:
    """A corpus that is becoming a store: checked once, by `prepare`, then encoded shard by shard.

    Attributes:
        documents: all of them, checked.
        encoder: embeds them.
        path: the store's directory.
        info: what `store.json` will say, but for the checksums.
        batch_size: documents embedded at a time.
    """

    documents: pa.Table
    encoder: Encoder
    path: Path
    info: dict[str, Any]
    batch_size: int

    @classmethod
    def prepare(
        cls,
        documents: pa.Table,
        encoder: Encoder,
        path: str | os.PathLike[str],
        batch_size: int,
        shard_size: int,
        dtype: str,
    ) -> CorpusEncoding:
        """Read all documents once, to check and to fingerprint them; arguments and errors of `encode_corpus`."""
        documents = checked_documents(documents, check_repeats=False)
        info = store_info(documents, encoder.identity, encoder.dim, dtype, shard_size)
        return cls(documents, encoder, Path(path), info, batch_size)

    @property
    def shards(self) -> Shards:
        """The embedding files."""
        return embedding_shards(self.path, self.info)

    def share_directory(self) -> AbstractContextManager[None]:
        """Share the directory with the other processes that encode this corpus (`amer.locks.share_directory`).

        The first one looks for ids that repeat: that takes memory for all ids, so not every process should do it.
        """
        ids = self.documents.column("id")
        return share_directory(self.path, STORE_FILE, self.info, check=lambda: check_ids(ids, "documents"))

    def encode(self, indices: Iterable[int], show_progress_bar: bool = False) -> None:
        """Encode those shards that are not there and that no other process is encoding."""

        def embed(rows: slice) -> np.ndarray:
            part = self.documents.slice(rows.start, rows.stop - rows.start)
            return self.encoder.encode_documents(part, batch_size=self.batch_size)

        if not (self.path / STORE_FILE).is_file():
            self.shards.fill(indices, embed, "document", show_progress_bar)


def finish_store(path: Path, documents: pa.Table, info: dict[str, Any]) -> bool:
    """Finish a store, inside `share_directory`, if every shard is there; whether it is finished.

    Args:
        path: the store's directory.
        documents: the corpus, as `checked_documents` gives it.
        info: what `store.json` will say, but for the checksums.

    Raises:
        OSError, ValueError: a shard was damaged since it was written.
    """
    if (path / STORE_FILE).is_file():
        return True
    shards = embedding_shards(path, info)
    if shards.missing():
        return False
    with try_lock(path / STORE_FILE) as free:
        if free and not (path / STORE_FILE).is_file():
            if not (path / DOCUMENTS_FILE).is_file():
                write_documents(path, documents)
            shards.finish(STORE_FILE, info)
        return free
