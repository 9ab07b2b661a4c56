"""The frozen document encoder: a sentence-transformers model, its prompts, and its identity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from amer.corpus.known_encoders import check_usable
from amer.offline import resolve_model


class DocumentEncoder:
    """Embeds documents and questions as unit vectors in one space.

    Attributes:
        name: what the encoder is called, on the Hub or by its folder.
        revision: its commit, None for unpinned.
        document_prompt: put before every document.
        query_prompt: put before every question.
        dim: size of an embedding.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        document_prompt: str = "",
        query_prompt: str = "",
        device: str | None = None,
        model_path: str | os.PathLike[str] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Load the model.

        Args:
            name: name on the Hub, or a folder.
            revision: commit, tag or branch on the Hub.
            document_prompt: put before every document.
            query_prompt: put before every question.
            device: where it runs; sentence-transformers chooses when None.
            model_path: where the weights lie when not under `name` (see `amer.offline.resolve_model`).
            trust_remote_code: run the code that the model brings along, as some need; pin its `revision` then.

        Raises:
            ValueError: a known encoder that needs `trust_remote_code`, or cannot be used (see `known_encoders`).
        """
        check_usable(name, trust_remote_code)
        from sentence_transformers import SentenceTransformer

        self.name = name
        self.revision = revision
        self.document_prompt = document_prompt
        self.query_prompt = query_prompt
        try:
            self._model = SentenceTransformer(
                str(model_path or name), revision=revision, device=device, trust_remote_code=trust_remote_code
            )
        except OSError as error:
            if name in str(error):
                raise
            raise OSError(f"the document encoder {name!r} could not be loaded: {error}") from error
        self.dim = self._embed(["one text shows the size"], "", 1, False).shape[1]

    @classmethod
    def from_identity(
        cls, identity: Mapping[str, Any], device: str | None = None, trust_remote_code: bool = False
    ) -> DocumentEncoder:
        """Load the encoder that a store or a model names, from wherever its weights are on this machine.

        Args:
            identity: `name`, and where they are not the defaults `revision`, `document_prompt`, `query_prompt`.
            device: where it runs; sentence-transformers chooses when None.
            trust_remote_code: run the code that the model brings along.

        Raises:
            ValueError: as the constructor does.
            FileNotFoundError: the name is a path, and no folder is there.
        """
        weights = resolve_model(identity["name"])
        return cls(**identity, device=device, model_path=weights, trust_remote_code=trust_remote_code)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the embeddings: `name`, `revision`, `document_prompt`, `query_prompt`."""
        return {
            "name": self.name,
            "revision": self.revision,
            "document_prompt": self.document_prompt,
            "query_prompt": self.query_prompt,
        }

    def encode_documents(
        self,
        documents: pa.Table | Sequence[Mapping[str, str]],
        batch_size: int = 256,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Embed documents with `title` and `text`: the title, a space, the text.

        Returns:
            `(n, dim)` float32, unit length, in the order given (batches are formed by length).

        Raises:
            ValueError: the model gave NaN, infinite or zero vectors.
        """
        records = documents.select(["title", "text"]).to_pylist() if isinstance(documents, pa.Table) else documents
        texts = [f"{record['title']} {record['text']}".strip() for record in records]
        return self._embed(texts, self.document_prompt, batch_size, show_progress_bar)

    def encode_queries(
        self, texts: Sequence[str], batch_size: int = 256, show_progress_bar: bool = False
    ) -> np.ndarray:
        """Embed questions, `(n, dim)` float32 of unit length; raises as `encode_documents` does."""
        return self._embed(list(texts), self.query_prompt, batch_size, show_progress_bar)

    def _embed(self, texts: list[str], prompt: str, batch_size: int, show_progress_bar: bool) -> np.ndarray:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        # The prompt is passed even when empty: None would make sentence-transformers use a default of its own.
        vectors = self._model.encode(texts, prompt=prompt, batch_size=batch_size, show_progress_bar=show_progress_bar)
        return _normalised(np.asarray(vectors, dtype=np.float32), texts)


def _normalised(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """`(n, dim)` at unit length; ValueError naming the first text whose vector has no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(
            f"the encoder gave {len(bad)} vector(s) that are NaN, infinite or zero, first for {texts[bad[0]][:80]!r}: "
            "check the model's weights and precision"
        )
    return vectors / lengths
