"""Open an index by its location: the same code works on a laptop and on a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from amer.corpus.store import DocumentStore
from amer.search.index.base import Index
from amer.search.index.exact import ExactIndex
from amer.search.index.faiss.index import FaissIndex
from amer.search.index.milvus.index import MilvusIndex

COLLECTION = "amer"
TOKEN_VARIABLE = "MILVUS_TOKEN"


def open_index(
    store: DocumentStore,
    location: str | os.PathLike[str] | None = None,
    device: str | torch.device | Sequence[str | torch.device] = "cpu",
    collection: str = COLLECTION,
    token: str | None = None,
    timeout: float = 60.0,
) -> Index:
    """Open an index of a store. Build FAISS and Milvus indexes first: `FaissIndex.build`, `MilvusIndex.build`.

    Args:
        store: The store to search.
        location: None for exact search, which needs no index. Or the folder of a FAISS index. Or, for Milvus, a file
            that ends in `.db`, or the address of a server or cluster, such as `http://host:19530`.
        device: Device of exact search: "cpu", "cuda" or several GPUs. FAISS and Milvus ignore it; to search a FAISS
            index on GPUs, call `FaissIndex.open`.
        collection: Name of the Milvus collection.
        token: Token for a Milvus server, "user:password" or an API key. Default: the environment variable
            MILVUS_TOKEN.
        timeout: Seconds that a call to Milvus may take, including retries.

    Raises:
        OSError: The index is missing or damaged, or the server does not answer.
        ValueError: The index belongs to another store, or is not finished.
    """
    if location is None:
        return ExactIndex(store, device)
    if "://" in str(location) or str(location).endswith(".db"):
        token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
        return MilvusIndex.open(store, str(location), collection, token=token, timeout=timeout)
    return FaissIndex.open(store, location)
