"""Sizes of the datasets (paper Table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amer.data.dataset import SPLITS
from experiments.analysis.tables import Cell, Table


def statistics_numbers(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[str, Any]:
    """Compute the number of queries of every split, and the mean number of targets in the test set.

    Args:
        counts: Dataset -> the field "splits" of its `dataset.json`: `{"train": {"queries": int, "targets": int,
            ...}, ...}`. The test split is required, the others are optional.

    Returns:
        `{"datasets": {dataset: {"train": int | None, "validation": int | None, "test": int, "targets": float}}}`.

    Raises:
        ValueError: There is no dataset, or a dataset has no test queries.
    """
    if not counts:
        raise ValueError("no dataset was given: Table 1 needs at least one")
    datasets = {}
    for dataset, splits in counts.items():
        test = splits.get("test", {})
        if not test.get("queries"):
            raise ValueError(f"dataset {dataset!r} has the splits {list(splits)}: it needs a test split with queries")
        queries = {split: splits[split]["queries"] if split in splits else None for split in SPLITS}
        datasets[dataset] = {**queries, "targets": test["targets"] / test["queries"]}
    return {"datasets": datasets}


def statistics_table(numbers: Mapping[str, Any]) -> Table:
    """Make Table 1 from the result of `statistics_numbers`."""
    rows = [
        [
            Cell(dataset),
            *(Cell("none" if entry[split] is None else f"{entry[split]:,}") for split in SPLITS),
            Cell(f"{entry['targets']:.2f}"),
        ]
        for dataset, entry in numbers["datasets"].items()
    ]
    caption = "Queries of every split, and the mean number of targets of a query in the test set."
    return Table(caption, ["Dataset", *(split.capitalize() for split in SPLITS), "Targets"], [rows])
