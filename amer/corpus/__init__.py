"""Documents: checked tables, their frozen embeddings, and the document store that holds both."""

from __future__ import annotations

from amer.corpus.documents import open_documents, take_documents
from amer.corpus.encoder import DocumentEncoder
from amer.corpus.encoding import encode_corpus
from amer.corpus.store import DocumentStore, write_store

__all__ = [
    "DocumentEncoder",
    "DocumentStore",
    "encode_corpus",
    "open_documents",
    "take_documents",
    "write_store",
]
