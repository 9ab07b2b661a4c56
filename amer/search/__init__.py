"""Search: encode a question into query vectors, search with each of them, fuse the result lists."""

from __future__ import annotations

from amer.search.attribution import VectorWords, words_by_vector
from amer.search.fusion import Fused, max_score, mixture, reciprocal_rank, round_robin, trained_fusion
from amer.search.index import ExactIndex, FaissIndex, Index, MilvusIndex, open_index
from amer.search.lists import search_lists
from amer.search.query_encoding import encode_queries, load_query_embeddings
from amer.search.searcher import Hit, Searcher, locate_encoder, open_model

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Fused",
    "Hit",
    "Index",
    "MilvusIndex",
    "Searcher",
    "VectorWords",
    "encode_queries",
    "load_query_embeddings",
    "locate_encoder",
    "max_score",
    "mixture",
    "open_index",
    "open_model",
    "reciprocal_rank",
    "round_robin",
    "search_lists",
    "trained_fusion",
    "words_by_vector",
]
