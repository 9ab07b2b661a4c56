"""The five systems as a table on the terminal."""

from __future__ import annotations

from rich.table import Table

from amer.baselines.splitting import TOLD
from amer.evaluation import SystemResult
from amer.fitting.comparison import Comparison

COLUMNS = {"R@10": "recall@10", "MRecall@10": "mrecall@10", "R@100": "recall@100"}


def comparison_table(comparison: Comparison) -> Table:
    """A table of the means for 80 columns. Bold: the best of the systems that do not know the true parts."""
    right = f"AMER chose the right number of parts for {100 * comparison.parts_right:.1f}% of them."
    caption = f"{len(comparison.parts):,} test questions, in %; searches and milliseconds a question. {right}"
    table = Table("system", caption=caption, caption_justify="left")
    for title in (*COLUMNS, "searches", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    rivals = [system for system in comparison.systems if system.name != TOLD]
    best = {metric: max(_mean(system, metric) for system in rivals) for metric in COLUMNS.values()}
    for system in comparison.systems:
        cells = []
        for metric, greatest in best.items():
            mean = _mean(system, metric)
            bold = "bold" if system in rivals and mean == greatest else "none"
            cells.append(f"[{bold}]{100 * mean:.1f}[/]")
        milliseconds = 1000 * (system.seconds_per_query or 0.0)
        table.add_row(system.name, *cells, f"{system.searches_per_query:.2f}", f"{milliseconds:.1f}")
    return table


def _mean(system: SystemResult, metric: str) -> float:
    return float(system.values[metric].mean())
