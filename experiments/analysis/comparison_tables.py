"""Systems and their gains over the reference as tables (paper Tables 2, 3 and 5 to 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amer.evaluation.report import SIGNIFICANT, SUBSETS, metric_label
from experiments.analysis.comparison import seed_range
from experiments.analysis.tables import MINUS, NOT_AVAILABLE, Cell, Table, gain_percent, highest, percent


def comparison_table(comparison: Mapping[str, Any], base: str) -> Table:
    """Make the table of every system on every dataset, for one base model (paper Tables 5 to 8).

    Args:
        comparison: Result of `comparison_numbers`.
        base: One of its base models.

    Raises:
        ValueError: There is no such base model.
    """
    if base not in comparison["bases"]:
        raise ValueError(f"no base model {base!r}: choose from {', '.join(comparison['bases'])}")
    datasets, reference = comparison["bases"][base], comparison["reference"]
    metric = metric_label(comparison["metric"])
    caption = (
        f"Results with {base} as base model: {metric} in %, {_of_means(seed_range([datasets]))}. "
        f"{_of_gains(reference)} {_of_queries(comparison['queries'])} "
        f"Bold: the best of a column on a dataset. Asterisk: {comparison['tested']} differs from {reference} "
        f"(p < {SIGNIFICANT}, paired bootstrap over queries, {comparison['resamples']:,} resamples)."
    )
    header = ["Dataset", "System"]
    for label in SUBSETS.values():
        header += [f"{label.capitalize()}: {metric}", "Δ"]
    groups = [_rows(dataset, systems, comparison["tested"]) for dataset, systems in datasets.items()]
    return Table(caption, header, groups, names=2)


def gain_table(gains: Mapping[str, Any]) -> Table:
    """Make the table of gains averaged over the base models, the best of a column in bold (paper Tables 2 and 3).

    Args:
        gains: Result of `gain_numbers`.
    """
    columns = [(dataset, subset) for dataset in gains["queries"] for subset in SUBSETS]
    every = len(gains["bases"])
    rows = [[Cell(name)] for name in gains["systems"]]
    for dataset, subset in columns:
        averages = [system[dataset][subset] for system in gains["systems"].values()]
        best = highest(average["gain"] for average in averages)
        for row, average, bold in zip(rows, averages, best, strict=True):
            partial = f" ({len(average['bases'])} of {every})" if 0 < len(average["bases"]) < every else ""
            row.append(Cell(gain_percent(average["gain"]) + partial, bold))
    caption = (
        f"{_of_gains(gains['reference'])} Macro-averaged over {every} base model{'s' if every > 1 else ''}: "
        f"{', '.join(gains['bases'])}. {metric_label(gains['metric'])}, mean over {_of_seeds(gains['seeds'])}. "
        f"{_of_queries(gains['queries'])} Bold: the best of a column."
    )
    if any(len(system[d][s]["bases"]) < every for system in gains["systems"].values() for d, s in columns):
        caption += f" (n of {every}): averaged over n base models, since A is 0 with the others."
    return Table(caption, ["System", *(f"{dataset} ({SUBSETS[subset]})" for dataset, subset in columns)], [rows])


def _rows(dataset: str, systems: Mapping[str, Any], tested: str) -> list[list[Cell]]:
    """The rows of one dataset; the first row has its name."""
    best = {subset: highest(system[subset]["mean"] for system in systems.values()) for subset in SUBSETS}
    rows = []
    for place, (name, system) in enumerate(systems.items()):
        row = [Cell("" if place else dataset), Cell(name)]
        for subset in SUBSETS:
            entry = system[subset]
            deviation = "" if entry["deviation"] is None else f" ± {percent(entry['deviation'])}"
            asterisk = name == tested and entry["p_value"] < SIGNIFICANT
            row.append(Cell(percent(entry["mean"]) + deviation, best[subset][place], asterisk))
            row.append(Cell(gain_percent(entry["gain"])))
        rows.append(row)
    return rows


def _of_gains(reference: str) -> str:
    return f"Δ is the relative gain (B {MINUS} A) / A over A = {reference}, {NOT_AVAILABLE} where A is 0."


def _of_means(seeds: Sequence[int]) -> str:
    spread = " ± standard deviation" if max(seeds) > 1 else ""
    return f"mean{spread} over {_of_seeds(seeds)}"


def _of_seeds(seeds: Sequence[int]) -> str:
    least, most = seeds
    return f"{most} seed{'s' if most > 1 else ''}" if least == most else f"{least} to {most} seeds"


def _of_queries(queries: Mapping[str, Mapping[str, int]]) -> str:
    counts = (f"{name} {count['whole']:,} ({count['low_similarity']:,})" for name, count in queries.items())
    return f"Queries, and those of them in the low similarity third: {', '.join(counts)}."
