"""Search a document store by inner product: exactly in torch, with FAISS or in Milvus, with one interface."""

from __future__ import annotations

from amer.search.index.base import Index
from amer.search.index.exact import ExactIndex
from amer.search.index.faiss.index import FaissIndex
from amer.search.index.milvus.index import MilvusIndex
from amer.search.index.opening import open_index

__all__ = ["ExactIndex", "FaissIndex", "Index", "MilvusIndex", "open_index"]
