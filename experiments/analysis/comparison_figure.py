"""All systems as bars, grouped by base model (paper Figure 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from amer.evaluation.plots import new_figure, save_figure
from amer.evaluation.report import SUBSETS, metric_label
from experiments.analysis.bars import LEAST_WIDTH, draw_bars, legend_above, panel_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figure4(comparison: Mapping[str, Any], path: str | os.PathLike[str]) -> Figure:
    """Draw Figure 4: a row of panels per dataset, the whole set beside the low similarity set.

    Args:
        comparison: Result of `comparison_numbers`, with up to six systems. Bars show means, error bars the deviation
            over seeds (none for one seed).
        path: Path of the PNG.

    Raises:
        ValueError: There are more than six systems.
    """
    bases, queries = comparison["bases"], comparison["queries"]
    systems = list(next(iter(next(iter(bases.values())).values())))
    shape = (len(queries), len(SUBSETS))
    width = len(SUBSETS) * panel_width(len(bases), len(systems), bar_width=0.25)
    figure, panels = new_figure(max(LEAST_WIDTH, width), 0.6 + 2.6 * len(queries), *shape, share_y="row")
    for (dataset, counts), row in zip(queries.items(), np.reshape(panels, shape), strict=True):
        for axes, (subset, label) in zip(row, SUBSETS.items(), strict=True):
            entries = {name: [here[dataset][name][subset] for here in bases.values()] for name in systems}
            draw_bars(axes, list(bases), _percents(entries, "mean"), _percents(entries, "deviation"))
            axes.set_title(f"{dataset}\n{label}: {counts[subset]:,} queries", fontsize=10)
        row[0].set_ylabel(f"{metric_label(comparison['metric'])} (%)")
    legend_above(figure, row[0])
    return save_figure(figure, path)


def _percents(entries: Mapping[str, list[dict[str, float | None]]], key: str) -> dict[str, list[float]]:
    """System -> a value in percent per base model, NaN for none."""
    return {
        name: [np.nan if entry[key] is None else 100 * entry[key] for entry in here] for name, here in entries.items()
    }
