"""AMER in mteb 2 and newer: `mteb.evaluate` runs its retrieval tasks on an AMER model and its document encoder.

mteb knows three kinds of models. An encoder gives one vector a text, so AMER is of the kind that indexes a corpus and
searches it (mteb's `SearchProtocol`).
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
    """Searches the corpora of mteb's retrieval tasks: one list a query vector, fused as the model was trained.

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
        """Check that model and encoder belong together; nothing is encoded yet.

        Args:
            model: an `AMERModel` that reads text.
            encoder: the document encoder it was trained against.
            folder: where the encoded corpora are kept.
            name: `organisation/model`, under which mteb files the results.
            revision: commit or tag of the model.
            num_query_vectors: m; None for the model's own.
            build_index: makes the index of a store: `ExactIndex`, `functools.partial(ExactIndex, device="cuda")`,
                `FaissIndex`.

        Raises:
            ValueError: another document encoder than the model's, a model that reads vectors only, or a name that is
                not of the form `organisation/model`.
        """
        check_encoder(model, encoder)
        if not model.config.reads_text:
            raise ValueError("the model reads vectors only, but mteb's questions are texts")
        if name.count("/") != 1:
            raise ValueError(f"mteb files results under organisation/model: name={name!r} is not of that form")
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
        """Encode the corpus, or open the store it was encoded into before.

        Args:
            corpus: columns `id`, `text` and perhaps `title`.
            task_metadata: names the task.
            hf_split: with the subset, names the store.
            hf_subset: with the split, names the store.
            encode_kwargs: `batch_size` and `show_progress_bar`.
            **unused: what else mteb passes.

        Raises:
            RuntimeError: another process is encoding the same corpus at the moment.
            ValueError: the store is of another corpus or encoder; an option of encoding that AMER does not have.
        """
        _check_options(encode_kwargs)
        path = self.folder / task_metadata.name / hf_subset / hf_split
        store = encode_corpus(_documents(corpus), self.encoder, path, **encode_kwargs)
        if store is None:
            raise RuntimeError(f"another process is encoding {path} at the moment: run this again when it is done")
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
            queries: columns `id` and `text`.
            top_k: documents a query, and length of the list searched for each query vector.
            encode_kwargs: `batch_size` and `show_progress_bar`.
            top_ranked: candidates of a re-ranking task, which AMER does not do.
            **unused: what else mteb passes: the task, its split and subset.

        Returns:
            query id -> document id -> score. mteb ranks by the score, so where the fused order is not one of scores
            (round-robin, objective "matched") the score is the reciprocal of the rank.

        Raises:
            RuntimeError: no corpus was indexed.
            ValueError: a re-ranking task, or queries that are not plain questions.
        """
        if self._searcher is None:
            raise RuntimeError("no corpus was indexed: call index first, as mteb.evaluate does")
        if top_ranked is not None:
            raise ValueError("AMER searches the whole corpus: it does not re-rank the candidates of this task")
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
        """What mteb records of the model: what the model itself says; the rest is unknown (None)."""
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
        raise ValueError(f"encode_kwargs may hold {', '.join(sorted(ENCODE_OPTIONS))}; got {', '.join(unknown)} too")


def _documents(corpus: Dataset) -> pa.Table:
    """The corpus as `id`, `title`, `text`; a missing title is empty."""
    table = corpus.with_format("arrow")[:]
    titles = table["title"] if "title" in table.column_names else pa.nulls(len(table), pa.string())
    return pa.table({"id": table["id"], "title": pc.fill_null(titles.cast(pa.string()), ""), "text": table["text"]})


def _questions(queries: Dataset) -> list[str]:
    texts = list(queries["text"])
    if "instruction" in queries.column_names or not all(isinstance(text, str) for text in texts):
        raise ValueError("AMER reads one question as text; this task's have instructions or are conversations")
    return texts
