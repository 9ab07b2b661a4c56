"""The service with the document encoder instead of a model: the reference of `service.py`.

It uses one vector per question, the same index and the same service, and prints `ready: ADDRESS` like `amer serve`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from amer.corpus import DocumentStore
from amer.offline import resolve_model
from amer.search import Searcher, open_index
from amer.service import Settings, serve
from modeling_amer import AMERConfig, QuestionEncoder


class EncoderAlone:
    """Implements the parts of a model that a `Searcher` uses; its query vector is the encoder's."""

    def __init__(self, store: DocumentStore, dtype: str) -> None:
        folder = resolve_model(store.encoder["name"])
        self.encoder = QuestionEncoder.from_identity(store.encoder, folder, getattr(torch, dtype))
        self.config = AMERConfig(
            name_or_path=store.encoder["name"],
            document_encoder=store.encoder,
            document_dim=store.dim,
            num_query_vectors=1,
        )

    def encode_query(self, texts: Sequence[str], batch_size: int, **_: object) -> torch.Tensor:
        """Encode to `(n, 1, dim)`, whatever the requested number of vectors."""
        return self.encoder.encode(texts, batch_size)[:, None]


if __name__ == "__main__":
    where, index, device, dtype = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = DocumentStore.open(Path(where))
    searcher = Searcher(EncoderAlone(store, dtype), open_index(store, index or None, device))
    searcher.search("warm up")
    serve(searcher, Settings(cache_size=0), port=0)
