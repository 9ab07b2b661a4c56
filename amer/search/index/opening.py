"""The index that a location names: the same lines of code from a laptop to a cluster."""

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
    """Open the index of a store, built before by `FaissIndex.build` or `MilvusIndex.build`.

    Args:
        store: what is searched.
        location: nothing for exact search, which needs no building; the folder of a FAISS index; or of Milvus a file
            that ends in `.db`, or the address of a server or cluster, `http://host:19530`.
        device: where exact search runs, "cpu", "cuda" or several GPUs. FAISS runs on the CPU whatever it is (for a
            copy on GPUs call `FaissIndex.open`), Milvus where it is.
        collection: name of the collection in Milvus.
        token: of a Milvus server that asks for one, "user:password" or an API key; by default what the environment
            holds as MILVUS_TOKEN.
        timeout: seconds that a call to Milvus may take, with all its repetitions.

    Raises:
        OSError: nothing is there, or what is there is damaged; the server does not answer.
        ValueError: the index is of another store, or has not been finished.
    """
    if location is None:
        return ExactIndex(store, device)
    if "://" in str(location) or str(location).endswith(".db"):
        token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
        return MilvusIndex.open(store, str(location), collection, token=token, timeout=timeout)
    return FaissIndex.open(store, location)
