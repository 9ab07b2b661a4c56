"""The paper's tables and figures: functions that compute numbers for JSON, and functions that draw these numbers."""

from __future__ import annotations

from experiments.analysis.comparison import comparison_numbers, gain_numbers
from experiments.analysis.comparison_figure import draw_figure4
from experiments.analysis.comparison_tables import comparison_table, gain_table
from experiments.analysis.diversity_figure import draw_figure1, figure1_numbers
from experiments.analysis.similarity import draw_figure5, draw_figure6, figure5_numbers, figure6_numbers
from experiments.analysis.statistics import statistics_numbers, statistics_table
from experiments.analysis.synthetic_figure import draw_figure3
from experiments.analysis.systems import systems_numbers, systems_table
from experiments.analysis.tables import Cell, Table

__all__ = [
    "Cell",
    "Table",
    "comparison_numbers",
    "comparison_table",
    "draw_figure1",
    "draw_figure3",
    "draw_figure4",
    "draw_figure5",
    "draw_figure6",
    "figure1_numbers",
    "figure5_numbers",
    "figure6_numbers",
    "gain_numbers",
    "gain_table",
    "statistics_numbers",
    "statistics_table",
    "systems_numbers",
    "systems_table",
]
