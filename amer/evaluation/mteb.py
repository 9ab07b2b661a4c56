"""AMER in mteb 2 and newer: `mteb.evaluate` runs its retrieval tasks on an AMER model and its document encoder.

mteb's encoder interface expects one vector per text, so AMER implements the search interface, mteb's `SearchProtocol`:
it indexes a corpus and searches it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus
from amer.search import ExactIndex, Searcher
from amer.search.index import Index
from amer.search.query_encoding import check_encoder

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

    from modeling_amer import AMERModel

ENCODE_OPTIONS = {"batch_size", "show_progress_bar"}


class AMERSearch:
    """Searches the corpora of mteb's retrieval tasks: one list per query vector, fused as the model's objective needs.

    search = AMERSearch(model, encoder, "outputs/mteb", name="org/amer-qwen3-4b", revision="v1")
    results = mteb.evaluate(search, mteb.get_tasks(tasks=["NFCorpus"]))
    """

    def __init__(
        self,
        model: AMERModel,
        encoder: DocumentEncoder,
        folder: str | os.PathLike[str],
        name: str,
        revision: str | None = None,
        num_query_vectors: int | None = None,
        build_index: Callable[[DocumentStore], Index] = ExactIndex,
    ) -> None:
        """Check that model and encoder fit together; this encodes nothing.

        Args:
            model: An `AMERModel` that takes questions as text.
            encoder: The document encoder that the model was trained with.
            folder: Folder for the encoded corpora.
            name: `organisation/model`; mteb stores the results under this name.
            revision: Commit or tag of the model.
            num_query_vectors: m; None for the model's default.
            build_index: Function that makes an index from a store: `ExactIndex`,
                `functools.partial(ExactIndex, device="cuda")` or `FaissIndex`.

        Raises:
            ValueError: The model has another document encoder or reads vectors only, or the name is not of the form
                `organisation/model`.
        """
        check_encoder(model, encoder)
        if not model.config.takes_text:
            raise ValueError("the model reads vectors only, but mteb's questions are texts: give a model of texts")
        if name.count("/") != 1:
            raise ValueError(
                f"name is {name!r}: mteb stores results under organisation/model, so give a name like that"
            )
        self.model = model
        self.encoder = encoder
        self.folder = Path(folder)
        self.name = name
        self.revision = revision
        self.num_query_vectors = num_query_vectors
        self._build_index = build_index
        self._searcher: Searcher | None = None

    def index(
        self,
        corpus: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        **unused: Any,
    ) -> None:
        """Encode the corpus, or open its store if it has been encoded before.

        Args:
            corpus: Table with the columns `id`, `text` and optionally `title`.
            task_metadata: Metadata with the name of the task.
            hf_split: Split; part of the store's name.
            hf_subset: Subset; part of the store's name.
            encode_kwargs: `batch_size` and `show_progress_bar`.
            **unused: Further arguments of mteb, ignored.

        Raises:
            RuntimeError: Another process is encoding the same corpus.
            ValueError: The store is of another corpus or encoder, or `encode_kwargs` has an unknown option.
        """
        _check_options(encode_kwargs)
        path = self.folder / task_metadata.name / hf_subset / hf_split
        store = encode_corpus(_documents(corpus), self.encoder, path, **encode_kwargs)
        if store is None:
            raise RuntimeError(f"another process is encoding {path}: run this again when it is done")
        self._searcher = Searcher(self.model, self._build_index(store), encoder=self.encoder)

    def search(
        self,
        queries: Dataset,
        *,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, list[str]] | None = None,
        **unused: Any,
    ) -> dict[str, dict[str, float]]:
        """Search the corpus that was indexed last.

        Args:
            queries: Table with the columns `id` and `text`.
            top_k: Number of documents per query, and length of the list of each query vector.
            encode_kwargs: `batch_size` and `show_progress_bar`.
            top_ranked: Candidates of a re-ranking task; AMER does not re-rank, so it must be None.
            **unused: Further arguments of mteb (the task, its split and subset), ignored.

        Returns:
            query id -> document id -> score. mteb ranks by score. If the fused order does not follow scores
            (round-robin, objective "matched"), the score is the reciprocal of the rank.

        Raises:
            RuntimeError: No corpus has been indexed.
            ValueError: The task is a re-ranking task, or the queries are not plain questions.
        """
        if self._searcher is None:
            raise RuntimeError("no corpus has been indexed: call index first, as mteb.evaluate does")
        if top_ranked is not None:
            raise ValueError("this is a re-ranking task, but AMER searches the whole corpus: choose a retrieval task")
        _check_options(encode_kwargs)
        fused = self._searcher.search_rows(
            _questions(queries), top_k, self.num_query_vectors, batch_size=encode_kwargs.get("batch_size", 64)
        )
        ids, scores = self._searcher.store.ids, fused.scores
        if self.model.config.objective != "mixture":
            scores = np.broadcast_to(1 / np.arange(1, fused.rows.shape[1] + 1), fused.rows.shape)
        results = {}
        for query, rows, row_scores in zip(queries["id"], fused.rows, scores, strict=True):
            found = rows >= 0
            results[query] = dict(zip(ids.take(rows[found]).to_pylist(), row_scores[found].tolist(), strict=True))
        return results

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The metadata of the model for mteb; what the model does not say is None."""
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

        config, parameters = self.model.config, list(self.model.parameters())
        own_m = self.num_query_vectors is None
        return ModelMeta(
            loader=None,
            name=self.name,
            revision=self.revision,
            release_date=None,
            languages=None,
            n_parameters=sum(parameter.numel() for parameter in parameters),
            n_embedding_parameters=sum(part.numel() for part in self.model.get_input_embeddings().parameters()),
            memory_usage_mb=sum(parameter.nbytes for parameter in parameters) / 2**20,
            max_tokens=config.text_config.max_position_embeddings,
            embed_dim=config.document_dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch", "Transformers"],
            similarity_fn_name=ScoringFunction.CUSTOM,
            use_instructions=True,
            training_datasets=None,
            adapted_from=config.base_model_name_or_path,
            experiment_kwargs=None if own_m else {"num_query_vectors": self.num_query_vectors},
        )


def _check_options(options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - ENCODE_OPTIONS)
    if unknown:
        raise ValueError(
            f"encode_kwargs may hold only {', '.join(sorted(ENCODE_OPTIONS))}; remove {', '.join(unknown)}"
        )


def _documents(corpus: Dataset) -> pa.Table:
    """The corpus as `id`, `title`, `text`; a missing title is empty."""
    table = corpus.with_format("arrow")[:]
    titles = table["title"] if "title" in table.column_names else pa.nulls(len(table), pa.string())
    return pa.table({"id": table["id"], "title": pc.fill_null(titles.cast(pa.string()), ""), "text": table["text"]})


def _questions(queries: Dataset) -> list[str]:
    texts = list(queries["text"])
    if "instruction" in queries.column_names or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            "the questions of this task have instructions or are conversations: AMER reads each question as one text"
        )
    return texts
