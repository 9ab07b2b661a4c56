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
TOKENS_ON_CPU = 4_096  # of a batch: what a layer makes of them stays in the cache (docs/performance.md)


class DocumentEncoder:
    """Embeds documents and questions as unit vectors in one space.

    The transformer computes in `dtype`; its token vectors are pooled and normalised in float32.

    Attributes:
        name: what the encoder is called, on the Hub or by its folder.
        revision: its commit, None for unpinned.
        document_prompt: put before every document.
        query_prompt: put before every question.
        dtype: what the transformer computes in, such as "float32".
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
        dtype: str | None = None,
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
            dtype: float32, bfloat16, or auto, which is bfloat16 where the device computes it natively and float32
                elsewhere. None is what the weights are saved in.

        Raises:
            ValueError: a known encoder that needs `trust_remote_code`, or cannot be used (see `known_encoders`);
                another `dtype`.
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
    ) -> DocumentEncoder:
        """Load the encoder that a store or a model names, from wherever its weights are on this machine.

        Args:
            identity: `name`, and where they are not the defaults `revision`, `document_prompt`, `query_prompt`. The
                `dtype` in it says how documents were embedded, and is not taken over.
            device: where it runs; sentence-transformers chooses when None.
            trust_remote_code: run the code that the model brings along.
            dtype: as for the constructor.

        Raises:
            ValueError: as the constructor does.
            FileNotFoundError: the name is a path, and no folder is there.
        """
        options = {**identity, "device": device, "trust_remote_code": trust_remote_code, "dtype": dtype}
        return cls(**options, model_path=resolve_model(identity["name"]))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a vector: `name`, `revision`, `document_prompt`, `query_prompt`; `dtype` if not float32."""
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
        """Embed documents with `title` and `text`: the title, a space, the text.

        Args:
            documents: what to embed.
            batch_size: most documents of a batch; on a CPU long ones make smaller batches.
            show_progress_bar: show how many are done.

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
        rows: list[int] = []
        vectors = []
        with tqdm(total=len(texts), unit="text", disable=not show_progress_bar) as progress:
            for batch in self._batches(self._lengths(texts, prompt), batch_size):
                # The prompt is passed even when empty: None would make sentence-transformers use a default of its own.
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
        """Tokens of each text with its prompt; characters, where the model has no tokenizer of transformers."""
        from transformers import PreTrainedTokenizerBase

        tokenizer, limit = self._model.tokenizer, self._model.max_seq_length
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            return [len(text) for text in texts]
        encoded = tokenizer([prompt + text for text in texts], truncation=limit is not None, max_length=limit)
        return [len(tokens) for tokens in encoded["input_ids"]]

    def _batches(self, lengths: list[int], batch_size: int) -> Iterator[list[int]]:
        """Rows of texts of about one length, the longest first: padding is work, too."""
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        start = 0
        while start < len(order):
            longest = max(1, lengths[order[start]])
            most = min(batch_size, TOKENS_ON_CPU // longest) if self._model.device.type == "cpu" else batch_size
            yield order[start : start + max(1, most)]
            start += max(1, most)


def _pool_in_float32(model: SentenceTransformer) -> None:
    """Leave the transformer, its first module, in half precision, and bring what follows it to float32."""
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
    """`(n, dim)` at unit length; ValueError naming the first text whose vector has no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(
            f"the encoder gave {len(bad)} vector(s) that are NaN, infinite or zero, first for {texts[bad[0]][:80]!r}: "
            "check the model's weights and precision"
        )
    return vectors / lengths
