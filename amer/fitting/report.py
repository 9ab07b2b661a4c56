"""The report on a fitted model: `report.md`, `results.json` and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from amer.baselines.splitting import RULE
from amer.evaluation import Report, plot_groups
from amer.evaluation.markdown import markdown_table
from amer.files import atomic_write, write_json
from amer.fitting.comparison import AMER, ENCODER, ONE, Comparison

METRIC, LABEL = "recall@10", "Recall@10 (%)"
PLOT, RESULTS = "comparison.png", "results.json"


def save_report(comparison: Comparison, similarity: np.ndarray, metadata: dict[str, Any], output: Path) -> None:
    """Write the report, the numbers that a model card reads, and the plot.

    Args:
        comparison: Comparison on the test questions.
        similarity: `(q,)` similarity of their targets (`target_similarity`).
        metadata: Facts about the model, the data and the machine.
        output: Folder for the three files.
    """
    by_parts = comparison.by_parts(METRIC)
    numbers = list(by_parts[AMER])
    right = {"system": AMER, **metadata, "right number of parts": f"{100 * comparison.parts_right:.1f}%"}
    report = Report(comparison.systems, similarity, (ONE, ENCODER, RULE), right)
    groups = [f"{number} parts" if number > 1 else "one part" for number in numbers]
    values = {name: list(means.values()) for name, means in by_parts.items()}
    plot_groups(values, groups, LABEL, output / PLOT)
    rows = [[name, *(f"{100 * mean:.1f}" for mean in means)] for name, means in values.items()]
    table = f"## {LABEL} by the number of parts\n\n{markdown_table(['System', *groups], rows)}\n\n![{LABEL}]({PLOT})\n"
    write_json(output / RESULTS, {**report.to_dict(), f"{METRIC}_by_parts": by_parts})
    with atomic_write(output / "report.md") as temporary:
        temporary.write_text(f"{report.to_markdown()}\n{table}", encoding="utf-8")
