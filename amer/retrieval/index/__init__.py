"""Search a document store by inner product: exactly in torch, with FAISS, or in Milvus, behind one interface."""

from __future__ import annotations

from amer.retrieval.index.base import Index
from amer.retrieval.index.exact import ExactIndex
from amer.retrieval.index.faiss_index import FaissIndex
from amer.retrieval.index.milvus_index import MilvusIndex
from amer.retrieval.index.opening import open_index

__all__ = ["ExactIndex", "FaissIndex", "Index", "MilvusIndex", "open_index"]
