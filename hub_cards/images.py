"""The two pictures of a model card, each drawn only if there is data for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

from amer.evaluation.plots import LOSSES, plot_quartiles, plot_training_run
from amer.hub_cards.results import headline_metric

TRAINING = "images/training.png"
BY_DIVERSITY = "images/by_diversity.png"


def has_curve(training: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether a training record has at least two losses, enough for a line."""
    history = training.get("log_history", []) if training else []
    return any(sum(entry.get(key) is not None for entry in history) > 1 for key in LOSSES)


def draw_images(
    folder: Path, training: dict[str, Any] | None, report: dict[str, Any] | None, system: str | None
) -> None:
    """Write the pictures that the card shows into `folder/images`.

    Args:
        folder: Folder of the card.
        training: A training record, or None.
        report: Contents of `results.json`, or None.
        system: Name of the card's model in the report.
    """
    if has_curve(training):
        plot_training_run(training["log_history"], folder / TRAINING)
    if report is not None:
        metric = headline_metric(report)
        shown = dict.fromkeys([system, *report["references"]])
        quartiles = {name: report["systems"][name]["metrics"][metric]["quartiles"] for name in shown}
        plot_quartiles(quartiles, metric, folder / BY_DIVERSITY, report.get("quartile_ranges"))
