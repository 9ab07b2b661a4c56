from .documents import open_documents, take_documents
from .encoder import DocumentEncoder
from .encoding import encode_corpus
from .store import DocumentStore, write_store

__all__ = [
    "DocumentEncoder",
    "DocumentStore",
    "encode_corpus",
    "open_documents",
    "take_documents",
    "write_store",
]
