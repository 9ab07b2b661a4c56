"""All systems by all metrics: beside the set metrics of the paper the usual ones of ranked lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from amer.evaluation.report import metric_label
from experiments.analysis.tables import Cell, Table, highest, percent


def systems_numbers(values: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> dict[str, Any]:
    """Means over queries, and over the runs of a system, which differ in base model or seed.

    Args:
        values: system -> one mapping a run: metric -> `(q,)`. All have the metrics of the first.

    Returns:
        `{system: {"runs": int, "metrics": {metric: float}}}`.

    Raises:
        ValueError: no system, a system without runs, or other metrics than the first has.
    """
    metrics = next((set(run) for runs in values.values() for run in runs), set())
    numbers = {}
    for system, runs in values.items():
        if not runs or any(set(run) != metrics for run in runs):
            raise ValueError(f"system {system!r} has {len(runs)} runs: needed are one or more, with {sorted(metrics)}")
        means = {metric: float(np.mean([run[metric].mean() for run in runs])) for metric in runs[0]}
        numbers[system] = {"runs": len(runs), "metrics": means}
    if not numbers:
        raise ValueError("no system was given: the table needs at least one")
    return numbers


def systems_table(numbers: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row a system of every dataset, the best of a column in bold.

    Args:
        numbers: dataset -> what `systems_numbers` gives.
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
