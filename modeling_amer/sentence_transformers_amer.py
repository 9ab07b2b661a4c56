"""AMER in sentence-transformers 6 and newer: a saved model opens as a `MultiVectorEncoder`.

    model = MultiVectorEncoder("org/amer-qwen3-4b", trust_remote_code=True)
    query_embeddings = model.encode_query(questions, num_query_vectors=5)
    document_embeddings = SentenceTransformer(...).encode(documents)  # the frozen document encoder
    scores = model.similarity(query_embeddings, document_embeddings)

It encodes questions. Documents have one vector each, made by the encoder AMER was trained against, and a document is
as similar to a question as to the nearest of its query vectors. That is not late interaction: MaxSim would sum over
the query vectors, and with one vector a document that sum is the search with their average.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

try:  # inside `try`, transformers does not ask everyone who loads the model to have sentence-transformers
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError("AMER as a MultiVectorEncoder needs sentence-transformers 6.0 or newer.") from error

Vectors = torch.Tensor | np.ndarray


class AMERModule(InputModule):
    """The only module of an AMER `MultiVectorEncoder`: questions in, query vectors out.

    Args:
        model: an `AMERModel` that reads text, or the document encoder's token vectors of it.
        encoder_options: how an anchored model's document encoder is fetched: `token`, `cache_folder`,
            `local_files_only` of `SentenceTransformer`.
    """

    save_in_root = True
    forward_kwargs = {"num_query_vectors"}  # noqa: RUF012  (what `encode_query` takes besides its own arguments)

    def __init__(self, model: PreTrainedModel, encoder_options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model: Any = model  # an AMERModel, which names this file, so that this file cannot name it
        self.encoder_options = encoder_options or {}

    def on_model_ready(self, model: MultiVectorEncoder) -> None:  # type: ignore[override]  # no other has this module
        """Give the encoder AMER's similarity in place of MaxSim, which it has no name for."""
        # A method cannot be assigned, mypy says; but this is where the encoder lets a module do so.
        model.similarity = max_similarity  # type: ignore[method-assign, assignment]
        model.similarity_pairwise = max_similarity_pairwise  # type: ignore[method-assign, assignment]

    def preprocess(  # type: ignore[override]  # questions are texts, never pairs or pictures
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        task: str | None = None,
        num_query_vectors: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The questions as they are: the model brings its own prompt and tokenizer.

        Args:
            inputs: the questions.
            prompt: none.
            task: "query".
            num_query_vectors: m; by default what the model says, or the configuration's number where it says none.

        Raises:
            ValueError: documents, texts that are not said to be questions, or a prompt.
        """
        if task != "query":
            raise ValueError(f"AMER encodes questions only: use encode_query for them. {self._about_documents()}")
        if prompt:
            raise ValueError(f"AMER has a prompt of its own (prompt_template in config.json); leave out {prompt!r}.")
        # m goes along with the questions: sentence-transformers before 6.2 does not hand it to `forward`.
        return {"texts": list(inputs), "num_query_vectors": num_query_vectors}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Encode what `preprocess` gives.

        Returns:
            `token_embeddings (batch, m, dim)`, the query vectors, and `attention_mask (batch, m)`: all ones, but where
            the model chose fewer vectors.
        """
        texts, num_query_vectors = features["texts"], features["num_query_vectors"]
        config = self.model.config
        input_vectors = self._embed(texts) if config.anchored and not config.token_vectors else None
        m = "auto" if num_query_vectors is None and config.chooses_number else num_query_vectors
        found = self.model.encode_query(texts, m, batch_size=len(texts), input_vectors=input_vectors)
        if m != "auto":
            found = found, torch.ones(found.shape[:2])
        query_embeddings, mask = (part.to(self.model.device) for part in found)
        return {"token_embeddings": query_embeddings, "attention_mask": mask.long()}

    @cached_property
    def document_encoder(self) -> SentenceTransformer:
        """The frozen document encoder, fetched when an anchored model first needs it; code of its own is not run.

        Raises:
            OSError: it is not there.
            ValueError: the model does not say which one it is.
        """
        encoder = self.model.config.document_encoder
        if not encoder:
            raise ValueError("An anchored model reads the document encoder's vectors, but config.json names none.")
        try:
            return SentenceTransformer(encoder["name"], revision=encoder.get("revision"), **self.encoder_options)
        except (OSError, ValueError) as error:
            raise OSError(
                f"An anchored model also reads the vectors of its document encoder, {encoder['name']!r}, which could "
                "not be loaded: make it reachable, or name a folder that holds it as document_encoder in "
                f"config_kwargs. ({error})"
            ) from error

    def _embed(self, texts: list[str]) -> np.ndarray:
        """The questions as vectors of the document encoder, `(n, dim)`, as the anchored model was trained on."""
        vectors = self.document_encoder.encode(
            texts,
            prompt=self.model.config.document_encoder.get("query_prompt") or "",  # None would take a default
            batch_size=len(texts),
            show_progress_bar=False,
            device=self.model.device,
        )
        vectors = np.asarray(vectors, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _about_documents(self) -> str:
        encoder = self.model.config.document_encoder
        if not encoder:
            return "Documents are encoded by the encoder it was trained against, which config.json does not name."
        where = f"{encoder['name']!r}" + (f", revision={encoder['revision']!r}" if encoder.get("revision") else "")
        return (
            f"Documents have one vector each: SentenceTransformer({where})"
            f".encode(documents, prompt={encoder.get('document_prompt') or ''!r})."
        )

    # -------------------------------------------------------------------------------- what sentence-transformers asks

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:  # type: ignore[override]  # read only: it is the model's
        """The model's."""
        return self.model.tokenizer

    def get_embedding_dimension(self) -> int:
        """Size of a query vector, and of a document's."""
        return self.model.config.document_dim

    @classmethod
    def load(  # type: ignore[override]  # its `init_defaults` is of modules that say what they need, and goes into kwargs
        cls,
        model_name_or_path: str | os.PathLike[str],
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **kwargs: Any,
    ) -> AMERModule:
        """Load a saved model.

        Args:
            model_kwargs: as for `AMERModel.from_pretrained`: `dtype`, `device_map`, `base_model_name_or_path`, ...
            config_kwargs: fields of the configuration to override.

        Raises:
            ValueError: options for a tokenizer, which goes with the model's prompt, or another backend than torch.
        """
        if processor_kwargs or backend != "torch":
            raise ValueError(
                f"AMER brings its tokenizer and runs in torch only: got processor_kwargs={processor_kwargs}, "
                f"backend={backend!r}."
            )
        options = {"token": token, "local_files_only": local_files_only}
        model = AutoModel.from_pretrained(
            model_name_or_path,
            subfolder=subfolder,
            revision=revision,
            cache_dir=cache_folder,
            trust_remote_code=trust_remote_code,
            **options,
            **(model_kwargs or {}),
            **(config_kwargs or {}),
        )
        return cls(model, {**options, "cache_folder": cache_folder})

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the model, as `AMERModel.save_pretrained` does.

        The card that sentence-transformers writes for a model without one calls it late interaction:
        `model.save_pretrained(path, create_model_card=False)`, and publish with `AMERModel.push_to_hub`.

        Raises:
            ValueError: pickled weights were asked for.
        """
        if not safe_serialization:
            raise ValueError("AMER is saved in safetensors only: leave out safe_serialization=False.")
        self.model.save_pretrained(output_path)


def max_similarity(
    query_embeddings: Vectors | Sequence[Vectors], document_embeddings: Vectors | Sequence[Vectors]
) -> torch.Tensor:
    """How similar each question is to each document: the largest inner product over its query vectors.

    Args:
        query_embeddings: one `(m, dim)` a question, in a list or as `(q, m, dim)`; `(m, dim)` is one question.
        document_embeddings: one vector a document, `(n, dim)`, in any form that holds it (`encode` of the document
            encoder gives it; here `(n, dim)` is never one document of n vectors).

    Returns:
        `(q, n)` float32, on the documents' device.

    Raises:
        ValueError: documents of several vectors each.
    """
    queries = _questions(query_embeddings)
    documents = _documents(document_embeddings, queries[0].shape[-1])
    return torch.stack([(query.to(documents.device) @ documents.T).amax(dim=0) for query in queries])


def max_similarity_pairwise(
    query_embeddings: Vectors | Sequence[Vectors], document_embeddings: Vectors | Sequence[Vectors]
) -> torch.Tensor:
    """`(n,)` similarities of question i and document i; see [`max_similarity`].

    Raises:
        ValueError: documents of several vectors each, or not as many as questions.
    """
    queries = _questions(query_embeddings)
    documents = _documents(document_embeddings, queries[0].shape[-1])
    pairs = zip(queries, documents, strict=True)
    return torch.stack([(query.to(document.device) @ document).amax() for query, document in pairs])


def _questions(embeddings: Vectors | Sequence[Vectors]) -> list[torch.Tensor]:
    """One `(m, dim)` float32 tensor a question."""
    if isinstance(embeddings, torch.Tensor | np.ndarray) and embeddings.ndim == 2:
        embeddings = [embeddings]
    return [torch.as_tensor(embedding).float() for embedding in embeddings]


def _documents(embeddings: Vectors | Sequence[Vectors], dim: int) -> torch.Tensor:
    """`(n, dim)` float32, one row a document."""
    parts = [embeddings] if isinstance(embeddings, torch.Tensor | np.ndarray) else embeddings
    rows = torch.cat([torch.as_tensor(part).float().reshape(-1, dim) for part in parts])
    if len(rows) != len(embeddings):
        raise ValueError(
            f"{len(embeddings)} documents hold {len(rows)} vectors of {dim}: AMER compares with documents of one "
            "vector each, as its document encoder gives them; it is not late interaction."
        )
    return rows
