"""Dense search as a search of texts: the document encoder's own questions in an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amer.corpus.encoder import DocumentEncoder
from amer.search.index import Index


class DenseRetriever:
    """Searches documents with one vector a text, off the shelf.

    Attributes:
        name: the encoder's.
    """

    def __init__(self, encoder: DocumentEncoder, index: Index) -> None:
        """Check that encoder and index belong together.

        Args:
            encoder: embeds the texts as questions.
            index: over documents that the same encoder embedded.

        Raises:
            ValueError: the documents were embedded by another encoder.
        """
        index.store.check_encoder(encoder.identity)
        self.name = encoder.name
        self._encoder = encoder
        self._index = index

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest documents of every text.

        Args:
            texts: questions, or anything else that is searched with the prompt of questions.
            k: length of each list; row -1 and score -inf fill up where there are fewer documents.

        Returns:
            rows `(n, k)` int64 and scores `(n, k)` float32, best first.

        Raises:
            ValueError: k < 1.
        """
        rows, scores = self._index.search(self._encoder.encode_queries(texts)[:, None], k)
        return rows[:, 0], scores[:, 0]
