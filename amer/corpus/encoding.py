"""Encode a corpus into a document store, shard by shard. An interrupted run resumes where it stopped."""

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
    """The parts of an encoder that `encode_corpus` uses. `DocumentEncoder` has them."""

    dim: int

    @property
    def identity(self) -> dict[str, Any]:
        """Name, revision and prompts."""

    def encode_documents(self, documents: pa.Table, batch_size: int) -> np.ndarray:
        """Return `(n, dim)` unit vectors of a table with `title` and `text`."""


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
    """Embed every document and write the store. The same call again resumes an interrupted run.

    Each shard is written atomically and independently, so a resumed run gives the same bytes as an uninterrupted one.
    A finished store is opened and returned.

    Several processes can share the work on one directory: each makes this call with its own `worker`. A process that
    finds all shards present finishes the store. A resumed run may use another number of workers. A process skips
    shards that another process is encoding, so two concurrent calls with the same arguments share the work too.

    Args:
        documents: Columns `id`, `title`, `text` and metadata. All documents, also if several workers share them.
        encoder: The frozen document encoder. It forms batches by length within a shard.
        path: Directory of the store: new, empty, or left by an earlier call with the same arguments.
        batch_size: Number of documents to embed at a time.
        shard_size: Documents per file, and the most work that an interruption can lose.
        dtype: Precision on disk, float16 or float32.
        show_progress_bar: Show how many documents are done.
        worker: Number of this process, from 0. It encodes every `num_workers`-th shard, starting with this one.
        num_workers: Number of processes that share the work.

    Returns:
        The store, or None while other workers or processes have shards left to write.

    Raises:
        ValueError: `path` belongs to another corpus, encoder, dtype or shard size, or the documents are invalid (see
            `checked_documents`).
        FileExistsError: `path` holds other files.
        OSError: The disk is full, or a written file is damaged. The message names the file.
    """
    encoding = CorpusEncoding.prepare(documents, encoder, path, batch_size, shard_size, dtype)
    with encoding.share_directory():
        encoding.encode(encoding.shards.of_worker(worker, num_workers), show_progress_bar)
        finished = finish_store(encoding.path, encoding.documents, encoding.info)
    return DocumentStore.open(path) if finished else None


@dataclass(frozen=True)
class CorpusEncoding:
    """The encoding of a corpus into a store: `prepare` checks the corpus once, `encode` encodes shards.

    Attributes:
        documents: All documents, checked.
        encoder: Encoder of the documents.
        path: Directory of the store.
        info: Contents of the future `store.json`, except the checksums.
        batch_size: Number of documents to embed at a time.
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
        """Check and fingerprint all documents, which reads them once. Arguments and errors as `encode_corpus`."""
        documents = checked_documents(documents, check_repeats=False)
        info = store_info(documents, encoder.identity, encoder.dim, dtype, shard_size)
        return cls(documents, encoder, Path(path), info, batch_size)

    @property
    def shards(self) -> Shards:
        """The embedding files."""
        return embedding_shards(self.path, self.info)

    def share_directory(self) -> AbstractContextManager[None]:
        """Share the directory with the other processes that encode this corpus (`amer.locks.share_directory`).

        Only the first process checks that no ID repeats, because the check needs memory for all IDs.
        """
        ids = self.documents.column("id")
        return share_directory(self.path, STORE_FILE, self.info, check=lambda: check_ids(ids, "documents"))

    def encode(self, indices: Iterable[int], show_progress_bar: bool = False) -> None:
        """Encode the missing shards among `indices`, except those that another process is encoding."""

        def embed(rows: slice) -> np.ndarray:
            part = self.documents.slice(rows.start, rows.stop - rows.start)
            return self.encoder.encode_documents(part, batch_size=self.batch_size)

        if not (self.path / STORE_FILE).is_file():
            self.shards.fill(indices, embed, "document", show_progress_bar)


def finish_store(path: Path, documents: pa.Table, info: dict[str, Any]) -> bool:
    """Finish a store if all shards exist, and return whether it is finished. Call it inside `share_directory`.

    Args:
        path: Directory of the store.
        documents: The corpus, from `checked_documents`.
        info: Contents of the future `store.json`, except the checksums.

    Raises:
        OSError, ValueError: A shard is damaged.
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
