"""From questions to documents: query vectors, one result list for each, one fused list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from amer.retrieval.encoder import DocumentEncoder
from amer.retrieval.fusion import Fused, Fusion, trained_fusion
from amer.retrieval.index import Index
from amer.retrieval.store import DocumentStore


class Hit(NamedTuple):
    """One document: `found_by` is the query vector that found it first, `found_at` its rank there, both from 0."""

    id: str
    score: float
    title: str
    text: str
    found_by: int
    found_at: int


class Searcher:
    """Answers questions with documents.

    Attributes:
        model: has `encode_query` and an `AMERConfig`.
        index: searches the store.
        store: where the documents are.
        encoder: embeds the questions for an anchored model; None for another.
    """

    def __init__(
        self,
        model: Any,
        index: Index,
        store: DocumentStore | None = None,
        encoder: DocumentEncoder | None = None,
    ) -> None:
        """Check that the model's query vectors and the store's documents lie in one space.

        Args:
            model: an `AMERModel`, or anything with its `encode_query` and configuration.
            index: an `ExactIndex`, `FaissIndex` or the like.
            store: the index's own by default.
            encoder: the document encoder, for an anchored model.

        Raises:
            ValueError: another document encoder or dim than the store's; an anchored model without its encoder.
        """
        self.model = model
        self.index = index
        self.store = index.store if store is None else store
        self.encoder = encoder
        config = model.config
        self.store.check_encoder(config.document_encoder)
        if config.document_dim != self.store.dim:
            raise ValueError(f"the model's vectors have {config.document_dim} values, the store's {self.store.dim}")
        if config.anchored and encoder is None:
            raise ValueError(f"an anchored model reads the question's embedding: pass encoder ({self.store.encoder})")
        if encoder is not None:
            self.store.check_encoder(encoder.identity)

    def search(
        self,
        questions: str | Sequence[str],
        k: int = 10,
        num_query_vectors: int | None = None,
        fusion: Fusion | None = None,
        batch_size: int = 64,
    ) -> list[list[Hit]]:
        """The documents of each question, best first; arguments as in `run`.

        Returns:
            one list a question, of k hits (fewer only where the lists hold fewer documents).
        """
        fused = self.run(questions, k, num_query_vectors, fusion, batch_size)
        rows = np.unique(fused.rows[fused.rows >= 0])
        documents = dict(zip(rows.tolist(), self.store.documents(rows), strict=True))
        hits = []
        for fields in zip(*(field.tolist() for field in fused), strict=True):
            found = [place for place in zip(*fields, strict=True) if place[0] >= 0]
            hits.append([_hit(documents[row], score, by, at) for row, score, by, at in found])
        return hits

    def run(
        self,
        questions: str | Sequence[str],
        k: int = 10,
        num_query_vectors: int | None = None,
        fusion: Fusion | None = None,
        batch_size: int = 64,
    ) -> Fused:
        """The store rows of each question, without their texts.

        Args:
            questions: one or several.
            k: documents a question, and length of the list searched for each query vector.
            num_query_vectors: m; the model's own by default.
            fusion: how m lists become one; by default what belongs to the objective the model was trained for,
                `round_robin` or `functools.partial(mixture, temperature=...)`.
            batch_size: questions encoded at a time.

        Returns:
            `(q, k)` rows, scores and where each was found.

        Raises:
            ValueError: no question, k < 1, or query vectors that do not fit the index.
        """
        questions = [questions] if isinstance(questions, str) else list(questions)
        if not questions:
            raise ValueError("no question was given: pass at least one")
        query_embeddings = self._encode(questions, num_query_vectors, batch_size)
        rows, scores = self.index.search(query_embeddings, k)
        config = self.model.config
        fusion = fusion or trained_fusion(config.objective, config.loss_temperature)
        return fusion(rows, scores, k, query_embeddings, self.store)

    def _encode(self, questions: list[str], num_query_vectors: int | None, batch_size: int) -> np.ndarray:
        anchors = self.encoder.encode_queries(questions, batch_size) if self.model.config.anchored else None
        query_embeddings = self.model.encode_query(
            questions, query_vectors=anchors, num_query_vectors=num_query_vectors, batch_size=batch_size
        )
        return torch.as_tensor(query_embeddings).detach().to("cpu", torch.float32).numpy()


def _hit(document: dict[str, str], score: float, found_by: int, found_at: int) -> Hit:
    return Hit(document["id"], score, document["title"], document["text"], found_by, found_at)
