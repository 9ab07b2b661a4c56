"""The frozen document encoder: a sentence-transformers model, its prompts, and its identity."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from amer.corpus.known_encoders import check_usable
from amer.machine import chosen_dtype
from amer.offline import resolve_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DTYPES = ("auto", "float32", "bfloat16")
TOKENS_ON_CPU = 4_096  # tokens per batch: the output of a layer fits the cache (docs/performance.md)


class DocumentEncoder:
    """Embeds documents and questions as unit vectors in the same space.

    The transformer computes in `dtype`. Pooling and normalisation are in float32.

    Attributes:
        name: Name of the encoder on the Hub, or its folder.
        revision: Commit of the encoder. None if it is not pinned.
        document_prompt: Prefix of every document.
        query_prompt: Prefix of every question.
        dtype: Precision of the transformer, such as "float32".
        dim: Dimension of an embedding.
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
        dtype: str | None = None,
        token: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            name: Name on the Hub, or a folder.
            revision: Commit, tag or branch on the Hub.
            document_prompt: Prefix of every document.
            query_prompt: Prefix of every question.
            device: Device of the encoder. Default: sentence-transformers chooses.
            model_path: Folder of the weights, if not `name` (see `amer.offline.resolve_model`).
            trust_remote_code: Run the code in the model's repository, which some models need. Pin `revision` then.
            dtype: float32, bfloat16, or auto, which is bfloat16 if the device supports it natively, else float32.
                Default: the precision of the saved weights.
            token: Hub token. Default: the token of your login.

        Raises:
            ValueError: The encoder needs `trust_remote_code` or cannot be used (see `known_encoders`), or `dtype` is
                unknown.
        """
        check_usable(name, trust_remote_code)
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"dtype must be {', '.join(DTYPES)}, or None for that of the weights, got {dtype!r}")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.util import get_device_name

        device = device or get_device_name()
        wanted = None if dtype is None else chosen_dtype(dtype, device)

        self.name = name
        self.revision = revision
        self.document_prompt = document_prompt
        self.query_prompt = query_prompt
        try:
            self._model = SentenceTransformer(
                str(model_path or name),
                revision=revision,
                device=device,
                trust_remote_code=trust_remote_code,
                token=token,
                model_kwargs=None if wanted is None else {"dtype": wanted},
            )
        except OSError as error:
            if name in str(error):
                raise
            raise OSError(f"the document encoder {name!r} could not be loaded: {error}") from error
        self.dtype = str(self._model.dtype or torch.float32).removeprefix("torch.")
        if self.dtype != "float32":
            _pool_in_float32(self._model)
        self.dim = self._embed(["one text shows the size"], "", 1, False).shape[1]

    @classmethod
    def from_identity(
        cls,
        identity: Mapping[str, Any],
        device: str | None = None,
        trust_remote_code: bool = False,
        dtype: str | None = None,
        token: str | None = None,
    ) -> DocumentEncoder:
        """Load the encoder that a store or a model names. Finds its weights on this machine or on the Hub.

        Args:
            identity: `name`, and `revision`, `document_prompt` and `query_prompt` unless they are the defaults. Its
                `dtype`, the precision in which documents were embedded, is ignored.
            device: Device of the encoder. Default: sentence-transformers chooses.
            trust_remote_code: Run the code in the model's repository.
            dtype: As for the constructor.
            token: Hub token. Default: the token of your login.

        Raises:
            ValueError: As the constructor.
            FileNotFoundError: The name is a path, but no such folder exists.
        """
        options = {**identity, "device": device, "trust_remote_code": trust_remote_code, "dtype": dtype}
        return cls(**options, model_path=resolve_model(identity["name"]), token=token)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines a vector: `name`, `revision`, `document_prompt`, `query_prompt`; `dtype` if not float32."""
        identity = {
            "name": self.name,
            "revision": self.revision,
            "document_prompt": self.document_prompt,
            "query_prompt": self.query_prompt,
        }
        return identity if self.dtype == "float32" else {**identity, "dtype": self.dtype}

    def encode_documents(
        self,
        documents: pa.Table | Sequence[Mapping[str, str]],
        batch_size: int = 256,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Embed documents. The input text is the `title`, a space and the `text`.

        Args:
            documents: The documents to embed.
            batch_size: Most documents per batch. On a CPU, batches of long documents are smaller.
            show_progress_bar: Show how many documents are done.

        Returns:
            `(n, dim)` float32 unit vectors, in the given order.

        Raises:
            ValueError: The model returned NaN, infinite or zero vectors.
        """
        records = documents.select(["title", "text"]).to_pylist() if isinstance(documents, pa.Table) else documents
        texts = [f"{record['title']} {record['text']}".strip() for record in records]
        return self._embed(texts, self.document_prompt, batch_size, show_progress_bar)

    def encode_queries(
        self, texts: Sequence[str], batch_size: int = 256, show_progress_bar: bool = False
    ) -> np.ndarray:
        """Embed questions as `(n, dim)` float32 unit vectors. Raises the same errors as `encode_documents`."""
        return self._embed(list(texts), self.query_prompt, batch_size, show_progress_bar)

    def _embed(self, texts: list[str], prompt: str, batch_size: int, show_progress_bar: bool) -> np.ndarray:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        rows: list[int] = []
        vectors = []
        with tqdm(total=len(texts), unit="text", disable=not show_progress_bar) as progress:
            for batch in self._batches(self._lengths(texts, prompt), batch_size):
                # Pass the prompt even if it is empty: with None, sentence-transformers uses its own default.
                vectors.append(
                    self._model.encode(
                        [texts[row] for row in batch], prompt=prompt, batch_size=len(batch), show_progress_bar=False
                    )
                )
                rows += batch
                progress.update(len(batch))
        embedded = np.empty((len(texts), vectors[0].shape[1]), dtype=np.float32)
        embedded[rows] = np.concatenate(vectors)
        return _normalised(embedded, texts)

    def _lengths(self, texts: list[str], prompt: str) -> list[int]:
        """Count the tokens of each text with its prompt, or characters if the tokenizer is not from transformers."""
        from transformers import PreTrainedTokenizerBase

        tokenizer, limit = self._model.tokenizer, self._model.max_seq_length
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            return [len(text) for text in texts]
        encoded = tokenizer([prompt + text for text in texts], truncation=limit is not None, max_length=limit)
        return [len(tokens) for tokens in encoded["input_ids"]]

    def _batches(self, lengths: list[int], batch_size: int) -> Iterator[list[int]]:
        """Group rows of texts with similar lengths, the longest first, to save padding."""
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        start = 0
        while start < len(order):
            longest = max(1, lengths[order[start]])
            most = min(batch_size, TOKENS_ON_CPU // longest) if self._model.device.type == "cpu" else batch_size
            yield order[start : start + max(1, most)]
            start += max(1, most)


def _pool_in_float32(model: SentenceTransformer) -> None:
    """Convert all modules after the transformer (the first module) to float32. The transformer keeps its precision."""
    transformer, *rest = model.children()
    for module in rest:
        module.float()

    def as_float32(module: torch.nn.Module, inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in features.items()
        }

    transformer.register_forward_hook(as_float32)


def _normalised(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Scale `(n, dim)` vectors to unit length. ValueError names the first text with a NaN, infinite or zero vector."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(
            f"the encoder gave {len(bad)} vector(s) that are NaN, infinite or zero, first for {texts[bad[0]][:80]!r}: "
            "check the model's weights and precision"
        )
    return vectors / lengths
