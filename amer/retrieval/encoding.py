"""Encode a corpus into a document store, shard by shard; an interrupted run resumes where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from amer.retrieval.shards import claimed
from amer.retrieval.store import (
    DOCUMENTS_FILE,
    STORE_FILE,
    DocumentStore,
    checked_documents,
    embedding_shards,
    store_info,
    write_documents,
)


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
    finds every shard there finishes the store. What some began, any other number of workers can bring to the end.

    Args:
        documents: columns `id`, `title`, `text`; all of them, whatever the worker.
        encoder: the frozen document encoder; it forms batches by length within a shard.
        path: the store's directory: new, empty, or left by an earlier call with the same arguments.
        batch_size: documents embedded at a time.
        shard_size: documents per file, and the most work an interruption can lose.
        dtype: float16 or float32, on disk.
        show_progress_bar: show how many documents are done.
        worker: encodes every `num_workers`-th shard, from the one of this number on.
        num_workers: how many processes share the work.

    Returns:
        the store; None while shards of other workers are missing.

    Raises:
        ValueError: `path` holds another corpus, encoder, dtype or shard size; the documents break the contract.
        FileExistsError: `path` holds other files.
    """
    path = Path(path)
    documents = checked_documents(documents)
    info = store_info(documents, encoder.identity, encoder.dim, dtype, shard_size)
    shards = embedding_shards(path, info)
    with claimed(path, STORE_FILE, info):
        if not (path / STORE_FILE).is_file():
            for index in shards.missing(worker, num_workers, "document", show_progress_bar):
                part = documents.slice(index * shard_size, shard_size)
                shards.write(index, encoder.encode_documents(part, batch_size=batch_size))
            if not shards.complete():
                return None
            if not (path / DOCUMENTS_FILE).is_file():
                write_documents(path, documents)
            shards.finish(STORE_FILE, info)
    return DocumentStore.open(path)
