"""AMER in sentence-transformers 6 and newer: a saved model opens as a `MultiVectorEncoder`.

    model = MultiVectorEncoder("org/amer-qwen3-4b", trust_remote_code=True)
    query_embeddings = model.encode_query(questions, num_query_vectors=5)
    document_embeddings = SentenceTransformer(...).encode(documents)  # the frozen document encoder
    scores = model.similarity(query_embeddings, document_embeddings)

It encodes questions. The encoder that AMER was trained with gives each document one vector. The similarity of a
question and a document is that of the document and the nearest query vector. This is not late interaction: MaxSim
would sum over the query vectors, which, with one vector per document, equals a search with their average.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

try:  # because of `try`, transformers does not require sentence-transformers to load the model
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError("AMER as a MultiVectorEncoder needs sentence-transformers 6.0 or newer.") from error

Vectors = torch.Tensor | np.ndarray


class AMERModule(InputModule):
    """The only module of an AMER `MultiVectorEncoder`: questions in, query vectors out.

    Args:
        model: An `AMERModel` that reads text, or the document encoder's token vectors of the text.
        encoder_options: Options of `SentenceTransformer` to load an anchored model's document encoder: `token`,
            `cache_folder`, `local_files_only`.
    """

    save_in_root = True
    forward_kwargs = {"num_query_vectors"}  # noqa: RUF012  (further arguments of `encode_query`)

    def __init__(self, model: PreTrainedModel, encoder_options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model: Any = model  # an AMERModel; this file cannot import it, because the model imports this file
        self.encoder_options = encoder_options or {}

    def on_model_ready(self, model: MultiVectorEncoder) -> None:  # type: ignore[override]  # no other has this module
        """Replace the encoder's MaxSim by AMER's similarity, which it does not offer by name."""
        # mypy forbids assigning a method, but this hook exists for such changes.
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
        """Return the questions unchanged, because the model has its own prompt and tokenizer.

        Args:
            inputs: The questions.
            prompt: Must be empty.
            task: Must be "query".
            num_query_vectors: m. Default: the model's choice, or the configuration's number if it cannot choose.

        Raises:
            ValueError: The task is not "query", or a prompt is given.
        """
        if task != "query":
            raise ValueError(f"AMER encodes questions only: call encode_query. {self._about_documents()}")
        if prompt:
            raise ValueError(f"AMER has its own prompt (prompt_template in config.json): leave out {prompt!r}.")
        # The questions carry m, because sentence-transformers before 6.2 does not pass it to `forward`.
        return {"texts": list(inputs), "num_query_vectors": num_query_vectors}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Encode the output of `preprocess`.

        Returns:
            `token_embeddings (batch, m, dim)`, the query vectors, and `attention_mask (batch, m)`, 0 after the last
            vector that the model emitted.
        """
        texts, num_query_vectors = features["texts"], features["num_query_vectors"]
        config = self.model.config
        input_vectors = self._embed(texts) if config.needs_question_vectors else None
        m = "auto" if num_query_vectors is None and config.chooses_number else num_query_vectors
        found = self.model.encode_query(texts, m, batch_size=len(texts), input_vectors=input_vectors)
        if m != "auto":
            found = found, found.any(dim=-1)
        query_embeddings, mask = (part.to(self.model.device) for part in found)
        return {"token_embeddings": query_embeddings, "attention_mask": mask.long()}

    @cached_property
    def document_encoder(self) -> SentenceTransformer:
        """The frozen document encoder of an anchored model. It loads on first use, without its custom code.

        Raises:
            OSError: The encoder cannot be loaded.
            ValueError: The configuration names no encoder.
        """
        encoder = self.model.config.document_encoder
        if not encoder:
            raise ValueError("An anchored model reads the document encoder's vectors, but config.json names none.")
        try:
            return SentenceTransformer(encoder["name"], revision=encoder.get("revision"), **self.encoder_options)
        except (OSError, ValueError) as error:
            raise OSError(
                f"An anchored model also reads the vectors of its document encoder, {encoder['name']!r}, which could "
                "not be loaded: make it reachable, or pass a folder that holds it as document_encoder in "
                f"config_kwargs. ({error})"
            ) from error

    def _embed(self, texts: list[str]) -> np.ndarray:
        """The document encoder's vectors of the questions, `(n, dim)`, as in the training of the anchored model."""
        vectors = self.document_encoder.encode(
            texts,
            prompt=self.model.config.document_encoder.get("query_prompt") or "",  # None would mean a default
            batch_size=len(texts),
            show_progress_bar=False,
            device=self.model.device,
        )
        vectors = np.asarray(vectors, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _about_documents(self) -> str:
        encoder = self.model.config.document_encoder
        if not encoder:
            return "Encode documents with the encoder that AMER was trained with, which config.json does not name."
        where = f"{encoder['name']!r}" + (f", revision={encoder['revision']!r}" if encoder.get("revision") else "")
        return (
            f"Encode documents to one vector each: SentenceTransformer({where})"
            f".encode(documents, prompt={encoder.get('document_prompt') or ''!r})."
        )

    # ----------------------------------------------------------------------- the interface of sentence-transformers

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:  # type: ignore[override]  # read only: it is the model's
        """The model's tokenizer."""
        return self.model.tokenizer

    def get_embedding_dimension(self) -> int:
        """Size of a query vector and of a document vector."""
        return self.model.config.document_dim

    @classmethod
    def load(  # type: ignore[override]  # its `init_defaults`, which only other modules use, goes into kwargs
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
            model_kwargs: Arguments of `AMERModel.from_pretrained`: `dtype`, `device_map`,
                `base_model_name_or_path`, ...
            config_kwargs: Fields of the configuration to override.

        Raises:
            ValueError: There are options for the tokenizer, which AMER fixes, or the backend is not torch.
        """
        if processor_kwargs or backend != "torch":
            raise ValueError(
                f"AMER brings its tokenizer and runs in torch only: got processor_kwargs={processor_kwargs}, "
                f"backend={backend!r}. Leave them out."
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

        The default card of sentence-transformers wrongly calls the model late interaction. Save with
        `model.save_pretrained(path, create_model_card=False)`, and publish with `AMERModel.push_to_hub`.

        Raises:
            ValueError: `safe_serialization` is False.
        """
        if not safe_serialization:
            raise ValueError("AMER saves models in safetensors only: leave out safe_serialization=False.")
        self.model.save_pretrained(output_path)


def max_similarity(
    query_embeddings: Vectors | Sequence[Vectors], document_embeddings: Vectors | Sequence[Vectors]
) -> torch.Tensor:
    """Similarity of each question and each document: the largest inner product over the question's vectors.

    Args:
        query_embeddings: A list with one `(m, dim)` per question, or `(q, m, dim)`; `(m, dim)` is one question.
        document_embeddings: `(n, dim)`, one vector per document, as from `encode` of the document encoder. It never
            means one document with n vectors.

    Returns:
        `(q, n)` float32, on the documents' device.

    Raises:
        ValueError: Documents have several vectors each.
    """
    queries = _questions(query_embeddings)
    documents = _documents(document_embeddings, queries[0].shape[-1])
    return torch.stack([(query.to(documents.device) @ documents.T).amax(dim=0) for query in queries])


def max_similarity_pairwise(
    query_embeddings: Vectors | Sequence[Vectors], document_embeddings: Vectors | Sequence[Vectors]
) -> torch.Tensor:
    """`(n,)` similarities of question i and document i; see [`max_similarity`].

    Raises:
        ValueError: Documents have several vectors each, or their number differs from that of the questions.
    """
    queries = _questions(query_embeddings)
    documents = _documents(document_embeddings, queries[0].shape[-1])
    pairs = zip(queries, documents, strict=True)
    return torch.stack([(query.to(document.device) @ document).amax() for query, document in pairs])


def _questions(embeddings: Vectors | Sequence[Vectors]) -> list[torch.Tensor]:
    """One `(m, dim)` float32 tensor per question."""
    if isinstance(embeddings, torch.Tensor | np.ndarray) and embeddings.ndim == 2:
        embeddings = [embeddings]
    return [torch.as_tensor(embedding).float() for embedding in embeddings]


def _documents(embeddings: Vectors | Sequence[Vectors], dim: int) -> torch.Tensor:
    """`(n, dim)` float32, one row per document."""
    parts = [embeddings] if isinstance(embeddings, torch.Tensor | np.ndarray) else embeddings
    rows = torch.cat([torch.as_tensor(part).float().reshape(-1, dim) for part in parts])
    if len(rows) != len(embeddings):
        raise ValueError(
            f"{len(embeddings)} documents hold {len(rows)} vectors of {dim}: AMER is not late interaction, give "
            "documents of one vector each, as its document encoder makes them."
        )
    return rows
