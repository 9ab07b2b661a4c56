"""Search in Qdrant."""

from __future__ import annotations

from amer.search.index.qdrant.index import QdrantIndex

__all__ = ["QdrantIndex"]
