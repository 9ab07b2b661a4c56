"""Computes metrics per query from a run, query vectors or a model, and means and p-values from these metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from amer.data import RetrievalDataset
from amer.evaluation.diversity import low_similarity_third
from amer.evaluation.recall import Targets, mrecall_from_ranks, recall_from_ranks, target_ranks
from amer.evaluation.significance import paired_bootstrap
from amer.search.fusion import Fusion, round_robin, trained_fusion
from amer.search.index import Index
from amer.search.lists import search_lists
from amer.search.query_encoding import query_embeddings_of


@dataclass(frozen=True, eq=False)
class SystemResult:
    """The results of one system.

    Attributes:
        name: Name of the system in tables and plots.
        values: Metric name -> `(q,)` values, one per query.
        searches_per_query: Number of query vectors searched per query; the mean if the model chooses m.
        seconds_per_query: Encoding, search and fusion together; None if not measured.

    Raises:
        ValueError: There is no metric, or the values are not finite vectors of one length.
    """

    name: str
    values: dict[str, np.ndarray]
    searches_per_query: float
    seconds_per_query: float | None = None

    def __post_init__(self) -> None:
        shapes = {np.shape(values) for values in self.values.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(
                f"system {self.name!r} needs values of one shape (q,) for all metrics, got the shapes {sorted(shapes)}"
            )
        broken = [metric for metric, values in self.values.items() if not np.isfinite(values).all()]
        if broken:
            raise ValueError(f"system {self.name!r} has NaN or infinite values of {', '.join(broken)}")

    def __len__(self) -> int:
        """The number of queries."""
        return len(next(iter(self.values.values())))


def evaluate_run(rows: np.ndarray, targets: Targets, ks: Sequence[int] = (10, 100)) -> dict[str, np.ndarray]:
    """Compute Recall@k and MRecall@k (paper §2) of every query.

    Args:
        rows: `(q, n)` store rows, best first, with n at least the largest k; -1 is padding.
        targets: The targets of each query, each a list of rows.
        ks: Cut-offs.

    Returns:
        `{"recall@10": (q,), "mrecall@10": (q,), "recall@100": (q,), ...}`.

    Raises:
        ValueError: There is no cut-off, or `amer.evaluation.recall.mrecall_at_k` raises it.
    """
    if not len(ks) or min(ks) < 1:
        raise ValueError(f"ks must be cut-offs of at least 1, got {tuple(ks)}")
    ranks = target_ranks(rows, targets, max(ks))
    values = {}
    for k in ks:
        values[f"recall@{k}"] = recall_from_ranks(ranks, k)
        values[f"mrecall@{k}"] = mrecall_from_ranks(ranks, k)
    return values


def evaluate_embeddings(
    query_embeddings: Any,
    dataset: RetrievalDataset,
    index: Index,
    name: str,
    ks: Sequence[int] = (10, 100),
    fusion: Fusion = round_robin,
    encoding_seconds: float | None = None,
) -> SystemResult:
    """Evaluate given query vectors, such as those of the document encoder itself.

    Args:
        query_embeddings: `(q, m, dim)` array or tensor, in the order of the dataset.
        dataset: One split; it is linked to the index's store if it is not linked yet.
        index: The index to search.
        name: Name of the system.
        ks: Cut-offs; the largest is the length of every list.
        fusion: How to fuse the m lists of a query into one.
        encoding_seconds: Encoding time per query; None if not measured.

    Returns:
        The result. It has seconds per query only if `encoding_seconds` is given.
    """
    linked = dataset if dataset.target_rows is not None else dataset.link(index.store)
    started = time.perf_counter()
    rows, scores = search_lists(index, query_embeddings, max(ks))
    fused = fusion(rows, scores, max(ks), query_embeddings, index.store)
    elapsed = time.perf_counter() - started
    values = evaluate_run(fused.rows, linked.linked_rows, ks)
    seconds = None if encoding_seconds is None else encoding_seconds + elapsed / len(dataset)
    return SystemResult(name, values, _searches(query_embeddings), seconds)


def evaluate_model(
    model: Any,
    dataset: RetrievalDataset,
    index: Index,
    num_query_vectors: int | Literal["auto"] | None,
    name: str,
    ks: Sequence[int] = (10, 100),
    batch_size: int = 64,
    fusion: Fusion | None = None,
    show_progress_bar: bool = False,
    encoding_seconds: float = 0.0,
) -> SystemResult:
    """Encode, search and fuse a dataset.

    Args:
        model: An `AMERModel`; its configuration says whether it reads the text, the vectors or both.
        dataset: One split; an anchored model needs `with_input_vectors` with the document encoder's embeddings.
        index: An index over a store of the model's document encoder.
        num_query_vectors: m, or "auto" to let the model choose. None: "auto" if the model can choose, else the
            model's default.
        name: Name of the system.
        ks: Cut-offs.
        batch_size: Number of queries to encode at a time.
        fusion: How to fuse the m lists of a query into one. Default: the fusion of the model's training objective.
        show_progress_bar: Show a progress bar while encoding.
        encoding_seconds: Encoding time per query of the dataset's `input_vectors`, which an anchored model reads.

    Raises:
        ValueError: There are no queries, they lack the text or vectors that the model reads, or the store is of
            another document encoder.
    """
    index.store.check_encoder(model.config.document_encoder)
    linked = dataset if dataset.target_rows is not None else dataset.link(index.store)
    inputs = _model_inputs(model.config, dataset)
    started = time.perf_counter()
    query_embeddings = query_embeddings_of(
        model, num_query_vectors, **inputs, batch_size=batch_size, show_progress_bar=show_progress_bar
    )
    encoding_seconds += (time.perf_counter() - started) / len(dataset)
    fusion = fusion or trained_fusion(model.config.objective, model.config.loss_temperature)
    return evaluate_embeddings(query_embeddings, linked, index, name, ks, fusion, encoding_seconds)


def summarise(
    system: SystemResult,
    similarity: np.ndarray,
    references: Sequence[SystemResult] = (),
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compute the means of every metric, on the whole set and its low similarity third, and compare with references.

    Args:
        system: The system to summarise.
        similarity: `(q,)` target similarity of the queries.
        references: Systems to compare with; the system itself is skipped.
        resamples: Number of resamples of the paired bootstrap.
        seed: Seed of the paired bootstrap.

    Returns:
        metric -> "whole" and "low_similarity" -> `{"mean": float, "against": {reference: {"difference", "low", "high",
        "p_value", "gain_percent"}}}`. The gain `(B - A) / A` (paper Table 2) is None if the reference has 0.
    """
    others = [reference for reference in references if reference.name != system.name]
    subsets = {"whole": np.ones(len(system), dtype=bool), "low_similarity": low_similarity_third(similarity)}
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for metric, values in system.values.items():
        summary[metric] = {}
        for subset, chosen in subsets.items():
            against = {
                other.name: _compare(values[chosen], other.values[metric][chosen], resamples, seed) for other in others
            }
            summary[metric][subset] = {"mean": float(values[chosen].mean()), "against": against}
    return summary


def _searches(query_embeddings: Any) -> float:
    """Query vectors per question, without zero vectors."""
    active = (torch.as_tensor(query_embeddings) != 0).any(dim=-1)
    return int(active.shape[1]) if active.all() else round(float(active.sum() / len(active)), 2)


def _compare(values: np.ndarray, reference: np.ndarray, resamples: int, seed: int) -> dict[str, float | None]:
    base = float(reference.mean())
    test = paired_bootstrap(values, reference, resamples, seed)
    return {**test._asdict(), "gain_percent": 100 * test.difference / base if base else None}


def _model_inputs(config: Any, dataset: RetrievalDataset) -> dict[str, Any]:
    """The parts of the dataset that the model reads, as arguments of `encode_query`."""
    if not len(dataset):
        raise ValueError("the dataset has no queries: give a split with at least one")
    if config.takes_text and dataset.queries is None:
        raise ValueError("the model reads text, but the queries of the dataset are vectors only: give queries as text")
    if config.token_vectors:  # the model makes them itself
        return {"texts": dataset.queries}
    if config.reads_vectors and dataset.input_vectors is None:
        raise ValueError(
            "the model reads vectors of the queries, but the dataset has none: "
            "use dataset.with_input_vectors(encoder.encode_queries(dataset.queries))"
        )
    return {
        "texts": dataset.queries if config.reads_text else None,
        "input_vectors": dataset.input_vectors if config.reads_vectors else None,
    }
