"""All metrics of all systems: the paper's set metrics and the usual metrics of ranked lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from amer.evaluation.report import metric_label
from experiments.analysis.tables import Cell, Table, highest, percent


def systems_numbers(values: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> dict[str, Any]:
    """Compute means over queries, and over the runs of a system, which differ in base model or seed.

    Args:
        values: System -> one mapping per run, metric -> `(q,)`; all have the same metrics.

    Returns:
        `{system: {"runs": int, "metrics": {metric: float}}}`.

    Raises:
        ValueError: There is no system, a system has no runs, or a run has other metrics than the first.
    """
    metrics = next((set(run) for runs in values.values() for run in runs), set())
    numbers = {}
    for system, runs in values.items():
        if not runs or any(set(run) != metrics for run in runs):
            raise ValueError(f"system {system!r} has {len(runs)} runs: give at least one, all with {sorted(metrics)}")
        means = {metric: float(np.mean([run[metric].mean() for run in runs])) for metric in runs[0]}
        numbers[system] = {"runs": len(runs), "metrics": means}
    if not numbers:
        raise ValueError("no system was given: the table needs at least one")
    return numbers


def systems_table(numbers: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make a table with one row per system and dataset, the best of a column in bold.

    Args:
        numbers: Dataset -> result of `systems_numbers`.
    """
    metrics = list(next(iter(next(iter(numbers.values())).values()))["metrics"])
    groups = []
    for dataset, systems in numbers.items():
        best = {metric: highest(system["metrics"][metric] for system in systems.values()) for metric in metrics}
        rows = []
        for place, (name, system) in enumerate(systems.items()):
            figures = [Cell(percent(system["metrics"][metric]), best[metric][place]) for metric in metrics]
            rows.append([Cell("" if place else dataset), Cell(name), Cell(str(system["runs"])), *figures])
        groups.append(rows)
    caption = (
        "Means over the test queries, in %, and over the base models and seeds of a system. Bold: best of a column."
    )
    return Table(caption, ["Dataset", "System", "Runs", *map(metric_label, metrics)], groups, names=2)
