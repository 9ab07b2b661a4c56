"""Distances between the outputs of a model and between the targets of a dataset (paper §6.3, A.4, Figures 5 and 6)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amer.data.distances import DISTANCES, RANDOM_QUERIES, SAME_QUERY, compare_with_random_queries
from amer.evaluation.plots import new_figure, save_figure
from experiments.analysis.bars import LEAST_WIDTH, draw_bars, legend_above, panel_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETWEEN_TARGETS = "Between Targets"
PAIRS = {SAME_QUERY: "two targets of the same query", RANDOM_QUERIES: "two targets of two random queries"}


def figure5_numbers(
    embeddings: Mapping[str, Mapping[str, np.ndarray]], target_similarity: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Compute the mean pairwise cosine between the query embeddings of a query, and between training targets.

    Args:
        embeddings: Dataset -> base model -> `(q, m, dim)` query embeddings of any length, with m at least 2;
            concatenate several seeds to `(seeds * q, m, dim)`.
        target_similarity: Dataset -> `(n,)` from `amer.evaluation.target_similarity`, for the training queries.

    Returns:
        `{"bases": [str], "datasets": {dataset: {"Between Targets": {"similarity": float, "queries": n}, base:
        {"similarity": float, "queries": q, "query_vectors": m}}}}`: means over pairs, then over queries.

    Raises:
        ValueError: There is no dataset, a dataset has other base models than the first, embeddings have another
            shape, a query has fewer than two, or a vector is zero or NaN.
    """
    if not embeddings or set(embeddings) != set(target_similarity):
        raise ValueError(
            f"embeddings are of {list(embeddings)}, targets of {list(target_similarity)}: give both of each dataset"
        )
    bases = list(next(iter(embeddings.values())))
    datasets = {}
    for dataset, outputs in embeddings.items():
        if not bases or set(outputs) != set(bases):
            raise ValueError(f"dataset {dataset!r} has the base models {list(outputs)}, the first has {bases}")
        targets = np.asarray(target_similarity[dataset])
        if targets.ndim != 1 or not len(targets) or not np.isfinite(targets).all():
            raise ValueError(
                f"target_similarity of {dataset!r} must be finite (n,), n at least 1, got {targets.shape}"
            )
        between = {"similarity": float(targets.mean()), "queries": len(targets)}
        outputs = {base: _output_similarity(outputs[base], f"{dataset}, {base}") for base in bases}
        datasets[dataset] = {BETWEEN_TARGETS: between, **outputs}
    return {"bases": bases, "datasets": datasets}


def draw_figure5(numbers: Mapping[str, Any], path: str | os.PathLike[str]) -> Figure:
    """Draw Figure 5: for each dataset, a blue bar for its targets and one bar per base model.

    Args:
        numbers: Result of `figure5_numbers`, with up to five base models.
        path: Path of the PNG.

    Raises:
        ValueError: There are more than five base models.
    """
    datasets = numbers["datasets"]
    bars = {
        name: [entry[name]["similarity"] for entry in datasets.values()]
        for name in (BETWEEN_TARGETS, *numbers["bases"])
    }
    figure, axes = new_figure(max(LEAST_WIDTH, panel_width(len(datasets), len(bars))), 3.8)
    draw_bars(axes, list(datasets), bars)
    axes.set_ylabel("Mean cosine similarity")
    legend_above(figure, axes)
    return save_figure(figure, path)


def figure6_numbers(target_vectors: Mapping[str, Sequence[np.ndarray]], seed: int = 0) -> dict[str, Any]:
    """Compute the mean distance between targets of the same query, and between targets of two random queries.

    Every query is paired with another one. All queries have the same weight, whatever their number of targets.

    Args:
        target_vectors: Dataset -> `(m_i, dim)` for each query, with m_i at least 2 and at least two queries;
            normalised to unit length. From a store:
            `[store.vectors([cluster[0] for cluster in query]) for query in target_rows]`.
        seed: Seed of the pairing.

    Returns:
        `{"seed": int, "datasets": {dataset: {"queries": int, "targets": int, "euclidean": {"same_query": float,
        "random_queries": float}, "cosine": {...}}}}`; the cosine distance is 1 - cosine.

    Raises:
        ValueError: There is no dataset, there are fewer than two queries, a query has fewer than two targets or
            another dim, or a vector is zero or NaN.
    """
    if not target_vectors:
        raise ValueError("no dataset was given: Figure 6 needs at least one")
    datasets = {name: _target_distances(vectors, seed, name) for name, vectors in target_vectors.items()}
    return {"seed": seed, "datasets": datasets}


def draw_figure6(numbers: Mapping[str, Any], path: str | os.PathLike[str]) -> Figure:
    """Draw Figure 6: Euclidean and cosine distance, for each dataset same query (blue) and random queries (orange).

    Args:
        numbers: Result of `figure6_numbers`.
        path: Path of the PNG.
    """
    datasets = numbers["datasets"]
    width = len(DISTANCES) * panel_width(len(datasets), len(PAIRS))
    figure, panels = new_figure(max(LEAST_WIDTH, width), 3.6, columns=len(DISTANCES))
    for axes, (kind, label) in zip(panels, DISTANCES.items(), strict=True):
        bars = {name: [entry[kind][pair] for entry in datasets.values()] for pair, name in PAIRS.items()}
        draw_bars(axes, list(datasets), bars)
        axes.set_ylabel(f"Mean {label} distance")
    legend_above(figure, axes)
    return save_figure(figure, path)


def _output_similarity(embeddings: np.ndarray, place: str) -> dict[str, Any]:
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 3 or not len(embeddings) or embeddings.shape[1] < 2:
        raise ValueError(
            f"{place}: embeddings must be (q, m, dim), q at least 1 and m at least 2, got {embeddings.shape}"
        )
    queries, m, _ = embeddings.shape
    unit = _unit(embeddings, place)
    # The sum over all ordered pairs of unit vectors is |sum v|^2 - m.
    similarity = ((unit.sum(axis=1) ** 2).sum(axis=1) - m) / (m * (m - 1))
    return {"similarity": float(similarity.mean()), "queries": queries, "query_vectors": m}


def _target_distances(vectors: Sequence[np.ndarray], seed: int, place: str) -> dict[str, Any]:
    """Compute the distances of one dataset."""
    if len(vectors) < 2:
        raise ValueError(f"{place}: {len(vectors)} queries are given: give at least 2")
    for query, targets in enumerate(vectors):
        if np.ndim(targets) != 2 or len(targets) < 2 or np.shape(targets)[1] != np.shape(vectors[0])[1]:
            raise ValueError(
                f"{place}: the targets of query number {query} must be (m, dim) of one dim, m at least 2, got "
                f"{np.shape(targets)}: leave out queries with a single target"
            )
    unit = [_unit(np.asarray(targets), place) for targets in vectors]
    distances = compare_with_random_queries(unit, seed)
    return {"queries": len(unit), "targets": sum(map(len, unit)), **distances}


def _unit(vectors: np.ndarray, place: str) -> np.ndarray:
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ValueError(f"{place}: a vector is zero or holds NaN or infinity, so it cannot be normalised")
    return vectors / norms
