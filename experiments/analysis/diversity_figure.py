"""Retrieval by the distance between a query's targets, overall and by number of targets (paper §3, Figure 1)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amer.data.distances import DISTANCES
from amer.evaluation.diversity import similarity_quartiles
from amer.evaluation.plots import line_styles, new_figure, save_figure
from amer.evaluation.report import metric_label
from experiments.analysis.bars import LEAST_WIDTH, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHOLE = "whole set"
BINS = ("<25", "25-50", "50-75", ">75")
LEAST_QUERIES = 40  # ten per bin


def figure1_numbers(
    dataset: str,
    values: Mapping[str, np.ndarray],
    distances: Mapping[str, Mapping[str, np.ndarray]],
    num_targets: np.ndarray,
    metric: str = "mrecall@100",
    least_queries: int = LEAST_QUERIES,
) -> dict[str, Any]:
    """Compute means in four bins by distance between targets, for all queries and for each size of the answer set.

    The bins are quarters by rank, nearest targets first, computed for each group of sizes, so that they are of equal
    size. Neighbouring sizes are merged from the smallest up until a group has `least_queries`; the remaining sizes
    join the last group.

    Args:
        dataset: Name of the dataset, for the title.
        values: Retriever -> `(q,)` values of 0 to 1.
        distances: Retriever -> `{"euclidean": (q,), "cosine": (q,)}`, from `amer.evaluation.target_distances` in the
            store of the retriever's document encoder (paper §3). Retrievers with the same store share them:
            `dict.fromkeys(values, distances)`.
        num_targets: `(q,)` integers, the number of targets of each query: two or more.
        metric: Name of the metric.
        least_queries: Smallest number of queries in a group of sizes, at least 4.

    Returns:
        `{"dataset", "metric", "least_queries", "distances": {kind: {group: {"queries": int, "retrievers": {name:
        {"means": [4], "counts": [4], "ranges": [[least, greatest] distance, 4 times]}}}}}}`. The groups are "whole
        set", then groups such as "2 targets" and "6 to 8 targets".

    Raises:
        ValueError: There are fewer than four queries, array lengths differ, values are NaN or outside 0 to 1, a query
            has fewer than two targets, retrievers have different kinds of distances, or least_queries is below 4.
    """
    sizes = _checked_sizes(num_targets)
    _check_retrievers(values, distances, sizes.shape)
    if least_queries < len(BINS):
        raise ValueError(f"least_queries is {least_queries}: four bins need at least {len(BINS)}")
    groups = {WHOLE: np.ones(len(sizes), dtype=bool), **_size_groups(sizes, least_queries)}
    numbers = {}
    for kind in DISTANCES:
        numbers[kind] = {
            group: {
                "queries": int(chosen.sum()),
                "retrievers": {
                    name: _bins(np.asarray(values[name])[chosen], np.asarray(distances[name][kind])[chosen])
                    for name in values
                },
            }
            for group, chosen in groups.items()
        }
    return {"dataset": dataset, "metric": metric, "least_queries": least_queries, "distances": numbers}


def draw_figure1(numbers: Mapping[str, Any], path: str | os.PathLike[str]) -> Figure:
    """Draw Figure 1: a row of panels per distance, with the whole set, then the sizes; one line per retriever.

    Args:
        numbers: Result of `figure1_numbers`, with up to 13 retrievers.
        path: Path of the PNG.

    Raises:
        ValueError: There are more retrievers than markers.
    """
    distances = numbers["distances"]
    shape = (len(distances), len(distances["euclidean"]))
    width = max(LEAST_WIDTH, 0.9 + 2.0 * shape[1])
    figure, panels = new_figure(width, 1.2 + 2.3 * shape[0], *shape, share_y=True)
    for axes, (group, entry) in zip(panels[0], distances["euclidean"].items(), strict=True):
        axes.set_title(f"{group}\n{entry['queries']:,} queries", fontsize=10)
    for (kind, label), row in zip(DISTANCES.items(), panels, strict=True):
        for axes, entry in zip(row, distances[kind].values(), strict=True):
            _draw_lines(axes, {name: bins["means"] for name, bins in entry["retrievers"].items()})
        row[0].set_ylabel(f"by {label} distance\n{metric_label(numbers['metric'])} (%)")
    axes.set_ylim(bottom=0)
    title = f"{numbers['dataset']}: queries by percentile (%) of the distance between targets"
    figure.supxlabel(title, fontsize=10)
    legend_above(figure, axes)
    return save_figure(figure, path)


def _draw_lines(axes: Axes, means: Mapping[str, Sequence[float]]) -> None:
    spread = 0.04 * (np.arange(len(means)) - (len(means) - 1) / 2)  # so that markers do not hide one another
    for shift, style, (name, heights) in zip(spread, line_styles(means), means.items(), strict=True):
        axes.plot(np.arange(len(BINS)) + shift, 100 * np.array(heights), label=name, **{**style, "markersize": 7})
    axes.set_xticks(range(len(BINS)), BINS, fontsize=8)


def _bins(values: np.ndarray, distances: np.ndarray) -> dict[str, list[Any]]:
    quarter = similarity_quartiles(distances)  # by rank, the smallest distance first
    places = [quarter == place for place in range(len(BINS))]
    return {
        "means": [float(values[here].mean()) for here in places],
        "counts": [int(here.sum()) for here in places],
        "ranges": [[float(distances[here].min()), float(distances[here].max())] for here in places],
    }


def _size_groups(sizes: np.ndarray, least_queries: int) -> dict[str, np.ndarray]:
    """Name of a group of sizes -> `(q,)` bool, the queries of the group."""
    groups: list[list[int]] = [[]]
    queries = 0
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        groups[-1].append(int(size))
        queries += count
        if queries >= least_queries:
            groups.append([])
            queries = 0
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    spans = [(group[0], group[-1]) for group in groups or [rest]]
    return {
        f"{first} targets" if first == last else f"{first} to {last} targets": (sizes >= first) & (sizes <= last)
        for first, last in spans
    }


def _checked_sizes(num_targets: np.ndarray) -> np.ndarray:
    sizes = np.asarray(num_targets)
    if sizes.ndim != 1 or len(sizes) < len(BINS) or sizes.dtype.kind not in "iu" or sizes.min() < 2:
        raise ValueError(
            f"num_targets must be integers (q,) of 2 or more for at least {len(BINS)} queries, got {sizes.dtype} "
            f"{sizes.shape}: leave out queries with a single target, which has no distance"
        )
    return sizes


def _check_retrievers(
    values: Mapping[str, np.ndarray], distances: Mapping[str, Mapping[str, np.ndarray]], shape: tuple[int, ...]
) -> None:
    if not values or set(values) != set(distances):
        raise ValueError(f"values are of {list(values)}, distances of {list(distances)}: give both of each retriever")
    for name in values:
        if set(distances[name]) != set(DISTANCES):
            raise ValueError(f"retriever {name!r} has the distances {list(distances[name])}: give {list(DISTANCES)}")
        for what, array in {"values": values[name], **distances[name]}.items():
            if np.shape(array) != shape or not np.isfinite(array).all():
                raise ValueError(f"{what} of {name!r} must be finite {shape}, got {np.shape(array)}")
        if np.min(values[name]) < 0 or np.max(values[name]) > 1:
            raise ValueError(f"values of {name!r} must lie in 0 to 1: give shares, not percent")
