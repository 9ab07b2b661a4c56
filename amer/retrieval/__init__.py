"""Document store, corpus encoding, search and fusion. No FAISS and no sentence-transformers until they are used."""

from __future__ import annotations

from amer.retrieval.encoder import DocumentEncoder
from amer.retrieval.encoding import encode_corpus
from amer.retrieval.fusion import Fused, max_score, mixture, reciprocal_rank, round_robin, trained_fusion
from amer.retrieval.index import ExactIndex, FaissIndex, Index, MilvusIndex, open_index
from amer.retrieval.query_encoding import encode_queries, load_query_embeddings
from amer.retrieval.searcher import Hit, Searcher
from amer.retrieval.store import DocumentStore, write_store

__all__ = [
    "DocumentEncoder",
    "DocumentStore",
    "ExactIndex",
    "FaissIndex",
    "Fused",
    "Hit",
    "Index",
    "MilvusIndex",
    "Searcher",
    "encode_corpus",
    "encode_queries",
    "load_query_embeddings",
    "max_score",
    "mixture",
    "open_index",
    "reciprocal_rank",
    "round_robin",
    "trained_fusion",
    "write_store",
]
