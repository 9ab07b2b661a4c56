"""Dense text search: the document encoder embeds the texts as questions and searches an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amer.corpus.encoder import DocumentEncoder
from amer.search.index import Index


class DenseRetriever:
    """Searches documents with one vector per text, from an off-the-shelf encoder.

    Attributes:
        name: Name of the encoder.
    """

    def __init__(self, encoder: DocumentEncoder, index: Index) -> None:
        """Check that encoder and index fit together.

        Args:
            encoder: The encoder that embeds the texts as questions.
            index: An index of documents that the same encoder embedded.

        Raises:
            ValueError: Another encoder embedded the documents.
        """
        index.store.check_encoder(encoder.identity)
        self.name = encoder.name
        self._encoder = encoder
        self._index = index

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search the k nearest documents of every text.

        Args:
            texts: Questions, or other texts; all get the prompt of questions.
            k: Length of each list; row -1 and score -inf pad it if there are fewer documents.

        Returns:
            rows `(n, k)` int64 and scores `(n, k)` float32, best first.

        Raises:
            ValueError: k < 1.
        """
        rows, scores = self._index.search(self._encoder.encode_queries(texts)[:, None], k)
        return rows[:, 0], scores[:, 0]
