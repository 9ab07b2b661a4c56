"""Plots that are readable for the colour-blind and in black and white: PNG, 150 dots per inch.

The colours are those of Okabe and Ito without yellow, which is hard to see on white. Markers and line styles repeat
what the colours say. Every plotting function also returns the figure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from amer.evaluation.report import Report, metric_label
from amer.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d")
HATCHES = ("", "///")  # used like LINES
LINES = ("-", "--", ":")  # the next style each time the colours repeat
LOSSES = {"loss": "training", "eval_loss": "validation"}
QUARTERS = ("most diverse", "second", "third", "least diverse")


def plot_by_diversity(report: Report, metric: str, path: str | os.PathLike[str]) -> Figure:
    """Plot one line per system over the quarters of the queries by target similarity (paper Figure 1).

    Args:
        report: A report of up to 13 systems.
        metric: Name of the metric, such as "mrecall@100".
        path: Path of the PNG.

    Raises:
        ValueError: The report lacks the metric, or has more systems than markers.
    """
    return plot_quartiles(report.by_quartile(metric), metric, path, report.quartile_ranges())


def plot_quartiles(
    quartiles: Mapping[str, Sequence[float]],
    metric: str,
    path: str | os.PathLike[str],
    ranges: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """Draw the plot of `plot_by_diversity` from the numbers in `results.json`.

    Args:
        quartiles: System -> mean (0 to 1) in each quarter, from the most diverse targets to the least; up to 13
            systems.
        metric: Name of the metric, such as "mrecall@100".
        path: Path of the PNG.
        ranges: Least and greatest target similarity of each quarter, shown below it.

    Raises:
        ValueError: There are more systems than markers, or none.
    """
    figure, axes = new_figure(8.5, 4.8)
    spread = 0.027 * (np.arange(len(quartiles)) - (len(quartiles) - 1) / 2)  # so that markers do not hide one another
    for shift, style, (name, means) in zip(spread, line_styles(quartiles), quartiles.items(), strict=True):
        axes.plot(np.arange(4) + shift, 100 * np.array(means), label=name, **style)
    below = [f"\n{low:.2f} to {high:.2f}" for low, high in ranges] if ranges else [""] * 4
    axes.set_xticks(range(4), [f"{name}{text}" for name, text in zip(QUARTERS, below, strict=True)])
    axes.set_xlabel("Quarter of the queries by mean cosine between targets")
    axes.set_ylabel(f"{metric_label(metric)} (%)")
    axes.set_ylim(bottom=0)
    _legend(axes, [means[-1] for means in quartiles.values()])
    return save_figure(figure, path)


def plot_groups(
    values: Mapping[str, Sequence[float]], groups: Sequence[str], label: str, path: str | os.PathLike[str]
) -> Figure:
    """Plot a bar for each system in each group of questions.

    Args:
        values: System -> mean (0 to 1) for each group; up to 13 systems.
        groups: Names of the groups, shown below the bars.
        label: Label of the value axis.
        path: Path of the PNG.

    Raises:
        ValueError: There are more than 13 systems, none, or the numbers of values and groups differ.
    """
    if any(len(means) != len(groups) for means in values.values()):
        raise ValueError(f"give a value for each of {len(groups)} groups, got {dict(values)}")
    line_styles(values)  # raises if there are too many
    figure, axes = new_figure(8.5, 4.8)
    width = 0.8 / len(values)
    for place, (name, means) in enumerate(values.items()):
        left = np.arange(len(groups)) + width * (place - (len(values) - 1) / 2)
        look = {"color": COLOURS[place % len(COLOURS)], "hatch": HATCHES[place // len(COLOURS)], "edgecolor": "white"}
        axes.bar(left, 100 * np.array(means), width, label=name, **look)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return save_figure(figure, path)


def plot_training_curve(
    histories: Mapping[str, Sequence[Mapping[str, float]]], metric: str, path: str | os.PathLike[str]
) -> Figure:
    """Plot a logged metric over the training steps, one line per run.

    Args:
        histories: Run -> `trainer.state.log_history`; entries without the metric are skipped.
        metric: Name of the metric, such as "loss" or "eval_mrecall@100".
        path: Path of the PNG.

    Raises:
        ValueError: A history never logs the metric, or there are more runs than markers.
    """
    curves = {name: _points(history, metric) for name, history in histories.items()}
    for name, (steps, _) in curves.items():
        if not steps:
            logged = sorted({key for entry in histories[name] for key in entry})
            raise ValueError(f"run {name!r} never logs {metric!r}; it logs {', '.join(logged) or 'nothing'}")
    figure, axes = new_figure(8.5, 4.8)
    _draw_curves(axes, curves)
    axes.set_xlabel("Training step")
    axes.set_ylabel(metric_label(metric.removeprefix("eval_")))
    return save_figure(figure, path)


def plot_training_run(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Figure:
    """Plot the training and validation loss of one run, and its validation metrics below, if it logged any.

    Args:
        history: `trainer.state.log_history`.
        path: Path of the PNG.

    Raises:
        ValueError: The history holds no loss.
    """
    keys = list(dict.fromkeys(key for entry in history for key in entry))
    losses = {name: _points(history, key) for key, name in LOSSES.items() if key in keys}
    metrics = {key: _points(history, key) for key in keys if "recall@" in key}
    if not losses:
        raise ValueError(f"the history holds neither {' nor '.join(LOSSES)}; it holds {', '.join(keys) or 'nothing'}")
    panels = [("Loss", losses)]
    if metrics:
        label = {key: metric_label(key.removeprefix("eval_")) for key in metrics}
        panels.append(("Validation (%)", {label[key]: (x, [100 * y for y in ys]) for key, (x, ys) in metrics.items()}))
    figure, axes = new_figure(8.5, 3.0 * len(panels), rows=len(panels))
    for panel, (title, lines) in zip(np.atleast_1d(axes), panels, strict=True):
        _draw_curves(panel, lines)
        panel.set_ylabel(title)
        panel.set_xlim(0, 1.02 * max(entry["step"] for entry in history))
    panel.set_xlabel("Training step")
    return save_figure(figure, path)


def _draw_curves(axes: Axes, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    for style, (name, (steps, values)) in zip(line_styles(curves), curves.items(), strict=True):
        axes.plot(steps, values, label=name, markevery=max(1, len(steps) // 10), **style)
    _legend(axes, [values[-1] for _, values in curves.values()])


def _points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a logged metric; values that are not numbers are skipped."""
    points = [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, share_y: bool | Literal["row"] = False
) -> tuple[Figure, Any]:
    """Make a figure that needs no display; return it with its panel, or with an array of panels if it has several."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=share_y)
    for axes in np.ravel(panels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.88", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def line_styles(names: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choose a distinct style for each name."""
    if not 1 <= len(names) <= len(MARKERS):
        raise ValueError(f"a plot shows 1 to {len(MARKERS)} lines or bars, got {len(names)}: change the number")
    return [
        {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place],
            "linestyle": LINES[place // len(COLOURS)],
            "linewidth": 1.6,
            "markersize": 9,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
            "clip_on": False,  # draw a marker at 0 whole
        }
        for place in range(len(names))
    ]


def _legend(axes: Axes, heights: Sequence[float]) -> None:
    """Draw the legend to the right of the plot, in the order of the lines' right ends."""
    handles, labels = axes.get_legend_handles_labels()
    order = np.argsort(-np.asarray(heights), kind="stable")
    ordered = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(*ordered, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Figure:
    """Write a figure as PNG, whole or not at all, and return it."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    return figure
