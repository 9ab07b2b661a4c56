"""The synthetic study as bars: systems and transformations by setting (paper Figure 3)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amer.evaluation.plots import new_figure, save_figure
from amer.evaluation.report import metric_label
from experiments.analysis.bars import LEAST_WIDTH, draw_bars, legend_above, panel_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIELDS = ("setting", "system", "transformation")


def draw_figure3(results: Sequence[Mapping[str, Any]], metrics: Sequence[str], path: str | os.PathLike[str]) -> Figure:
    """Draw Figure 3: one panel per metric, with a group of bars for each system in each setting.

    A group has one bar per transformation.

    Args:
        results: One mapping per bar of a panel: "setting", "system", "transformation" and the mean (0 to 1) of every
            metric; a missing combination leaves a gap.
        metrics: Names of metrics, such as `("mrecall@100", "mrecall@10")`.
        path: Path of the PNG.

    Raises:
        ValueError: There is nothing to draw, a field is missing, or there are more transformations than styles.
    """
    if not results or not metrics or any(name not in result for result in results for name in (*FIELDS, *metrics)):
        raise ValueError(
            f"every result needs {', '.join((*FIELDS, *metrics))}, and there must be at least one of each"
        )
    settings, systems, transformations = (list(dict.fromkeys(result[name] for result in results)) for name in FIELDS)
    groups = [(setting, system) for setting in settings for system in systems]
    width = max(LEAST_WIDTH, panel_width(len(groups), len(transformations)))
    figure, panels = new_figure(width, 2.7 * len(metrics), rows=len(metrics))
    for axes, metric in zip(np.atleast_1d(panels), metrics, strict=True):
        means = {tuple(result[name] for name in FIELDS): 100 * result[metric] for result in results}
        bars = {name: [means.get((*group, name), np.nan) for group in groups] for name in transformations}
        draw_bars(axes, [system for _, system in groups], bars)
        _name_settings(axes, settings, len(systems))
        axes.set_ylim(0, 112)
        axes.set_ylabel(f"{metric_label(metric)} (%)")
    legend_above(figure, axes)
    return save_figure(figure, path)


def _name_settings(axes: Axes, settings: Sequence[str], systems: int) -> None:
    """Write the name of each setting below its systems, and draw a line between two settings."""
    below = {"xycoords": ("data", "axes fraction"), "xytext": (0, -22), "textcoords": "offset points"}
    for place, setting in enumerate(settings):
        middle = place * systems + (systems - 1) / 2
        axes.annotate(setting, (middle, 0), **below, ha="center", va="top", fontweight="bold")
        if place:
            axes.axvline(place * systems - 0.5, color="0.7", linewidth=0.8)
