"""Grouped bars that are readable for the colour-blind and in black and white."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = (  # colour and hatch of each kind of bar; colours of Okabe and Ito, as in `amer.evaluation.plots`
    ("#0072B2", ""),
    ("#E69F00", "///"),
    ("#009E73", "..."),
    ("#CC79A7", "xxx"),
    ("#56B4E9", "\\\\\\"),
    ("white", "ooo"),
)
NAME_WIDTH = 14  # characters per line below a group
FILLED = 0.8  # share of a group's width that bars fill
LEAST_WIDTH = 6.5  # inches: room for titles and legend in a figure with few bars or panels


def draw_bars(
    axes: Axes,
    groups: Sequence[str],
    bars: Mapping[str, Sequence[float]],
    errors: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Draw the bars of every group side by side, with error bars or else with their heights above them.

    Args:
        axes: Axes to draw on.
        groups: Names below the groups.
        bars: Name in the legend -> one height per group, NaN for none.
        errors: The same names -> one deviation per group, NaN for none.

    Raises:
        ValueError: There are more kinds of bars than styles.
    """
    if not 1 <= len(bars) <= len(STYLES):
        raise ValueError(f"a group has 1 to {len(STYLES)} bars, got {len(bars)}: change the number")
    width = FILLED / len(bars)
    for place, (name, heights) in enumerate(bars.items()):
        centres = np.arange(len(groups)) + (place - (len(bars) - 1) / 2) * width
        colour, hatch = STYLES[place]
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.8}
        if errors is not None:
            style |= {"yerr": errors[name], "error_kw": {"elinewidth": 1.0, "capsize": 2.5}}
        drawn = axes.bar(centres, heights, width, label=name, **style)
        if errors is None:
            labels = ["" if np.isnan(height) else f"{height:.2f}" for height in heights]
            axes.bar_label(drawn, labels, padding=2, fontsize=8)
    axes.set_xticks(range(len(groups)), [textwrap.fill(group, NAME_WIDTH) for group in groups], fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.margins(y=0.1)  # room for the heights above the bars
    axes.axhline(0, color="black", linewidth=0.8)


def panel_width(groups: int, bars: int, bar_width: float = 0.4) -> float:
    """Width in inches for `groups` groups of `bars` bars; at 0.4 per bar, names and heights do not overlap."""
    return 0.8 + groups * max(1.25, bar_width * bars)


def legend_above(figure: Figure, axes: Axes) -> None:
    """Draw the legend of one panel above all panels, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    columns = int(figure.get_figwidth() / (0.8 + 0.08 * max(map(len, labels))))
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, columns), frameon=False, handlelength=3)
