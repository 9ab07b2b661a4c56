"""Tables and a plot for questions of several parts, from the numbers of `parts_numbers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amer.evaluation.plots import new_figure, save_figure
from amer.evaluation.report import SIGNIFICANT
from experiments.analysis.bars import draw_bars, legend_above, panel_width
from experiments.analysis.parts_numbers import BY_GROUP, RESAMPLES
from experiments.analysis.tables import MINUS, NOT_AVAILABLE, Cell, Table, highest, percent

DRAWN = {"R@10": "recall@10", "MRecall@10": "mrecall@10"}
ROWS = 6  # height of the bars in inches


def main_table(numbers: Mapping[str, Any], reference: str, apart: Sequence[str]) -> Table:
    """Make a table of every system: recall at all depths, searches and milliseconds.

    Args:
        numbers: Result of `parts_numbers`; each system also has "alone", `{"seconds", "encoder_seconds"}` or None.
        reference: The system that the asterisk tests compare with.
        apart: Systems that get more than the question, or give more documents; never in bold.
    """
    metrics = list(next(iter(numbers.values()))["metrics"])
    best = {metric: _best(numbers, apart, lambda system, key=metric: system["metrics"][key]) for metric in metrics}
    rows = []
    for place, (name, system) in enumerate(numbers.items()):
        cells = [_entry(system["metrics"][metric], best[metric][place], reference) for metric in metrics]
        alone = system["alone"]
        times = [system["seconds"], *([alone["seconds"], alone["encoder_seconds"]] if alone else [None, None])]
        rows.append(
            [Cell(name), *cells, Cell(f"{system['searches']:.2f}"), *(Cell(_milliseconds(time)) for time in times)]
        )
    caption = (
        f"Means over the questions in %, ± standard deviation over seeds; m is the number of parts of a question. "
        f"Bold: the best of a column but for {', '.join(apart)}. Asterisk: differs from {reference} "
        f"(p < {SIGNIFICANT}, paired bootstrap over questions, {RESAMPLES:,} resamples). Milliseconds a question: "
        f"encoding, search and fusion of all questions together; encoding alone of one question by itself, and the "
        f"encoder's own time in turns with it."
    )
    header = ["System", *map(short_label, metrics), "searches", "ms", "ms, one question", "encoder, one question"]
    return Table(caption, header, [rows])


def difference_table(numbers: Mapping[str, Any], reference: str) -> Table:
    """Make a table of the differences of each system from the reference, with p-values."""
    metrics = list(next(iter(numbers.values()))["metrics"])
    rows = [
        [Cell(name), *(Cell(_difference(system["metrics"][metric]["against"][reference])) for metric in metrics)]
        for name, system in numbers.items()
        if name != reference
    ]
    caption = f"Points ahead of {reference}, and p of the paired bootstrap over questions, each the mean of its seeds."
    return Table(caption, ["System", *map(short_label, metrics)], [rows])


def group_table(numbers: Mapping[str, Any], counts: Mapping[str, int], reference: str, apart: Sequence[str]) -> Table:
    """Make a table of Recall and MRecall at 10 in each group of questions.

    Args:
        numbers: As in `main_table`.
        counts: Group -> number of questions.
        reference: As in `main_table`.
        apart: As in `main_table`.
    """
    columns = [(group, metric) for group in counts for metric in BY_GROUP]
    best = {
        column: _best(numbers, apart, lambda system, at=column: system["groups"][at[0]][at[1]]) for column in columns
    }
    rows = [
        [
            Cell(name),
            *(_entry(system["groups"][g][metric], best[g, metric][place], reference) for g, metric in columns),
        ]
        for place, (name, system) in enumerate(numbers.items())
    ]
    sizes = ", ".join(f"{count:,} of {group}" for group, count in counts.items())
    caption = f"In %, as above, in each group of questions: {sizes}."
    return Table(caption, ["System", *(f"{group}: {short_label(metric)}" for group, metric in columns)], [rows])


def one_part_table(numbers: Mapping[str, Any], group: str, reference: str) -> Table:
    """Make a table of questions with one part: they need no splitting, so results should not get worse."""
    rows = []
    for name, system in numbers.items():
        entries = [system["groups"][group][metric] for metric in BY_GROUP]
        tests = [_difference(entry["against"].get(reference)) for entry in entries]
        figures = [_entry(entry, False, reference) for entry in entries]
        rows.append([Cell(name), *figures, *map(Cell, tests), Cell(f"{system['groups'][group]['searches']:.2f}")])
    labels = [short_label(metric) for metric in BY_GROUP]
    header = ["System", *labels, *(f"{label} ahead of {reference}" for label in labels), "searches"]
    return Table("Questions of one part alone.", header, [rows])


def splitting_table(splitting: Mapping[str, Any]) -> Table:
    """Make a table of how well systems find the number of parts and the parts, from `splitting_numbers`."""
    numbers = list(next(iter(splitting.values()))["number"])
    rows = [
        [
            Cell(name),
            *(Cell(_spread(system["number"][number])) for number in numbers),
            *(Cell(_spread(system[kind]) if kind in system else NOT_AVAILABLE) for kind in ("parts", "questions")),
        ]
        for name, system in splitting.items()
    ]
    caption = (
        "Right number of parts, overall and by that number; parts found to the letter; questions with all parts right "
        "and no other. In %."
    )
    titles = ["all", *(f"{number} part{'s' if number != '1' else ''}" for number in numbers[1:])]
    return Table(caption, ["System", *titles, "exact parts", "exact questions"], [rows])


def draw_parts(numbers: Mapping[str, Any], path: Path) -> None:
    """Draw Recall and MRecall at 10 of every system as bars, to a PNG."""
    figure, axes = new_figure(panel_width(len(numbers), len(DRAWN)), ROWS)
    bars = {
        label: [100 * system["metrics"][metric]["mean"] for system in numbers.values()]
        for label, metric in DRAWN.items()
    }
    draw_bars(axes, list(numbers), bars)
    axes.set_ylabel("%")
    legend_above(figure, axes)
    save_figure(figure, path)


def short_label(metric: str) -> str:
    """ "recall@10" -> "R@10", "mrecall@2m" -> "M@2m"."""
    name, _, cutoff = metric.partition("@")
    return f"{'M' if name == 'mrecall' else 'R'}@{cutoff}"


def _best(numbers: Mapping[str, Any], apart: Sequence[str], entry: Any) -> list[bool]:
    return highest(None if name in apart else entry(system)["mean"] for name, system in numbers.items())


def _entry(entry: Mapping[str, Any], bold: bool, reference: str) -> Cell:
    test = entry["against"].get(reference)
    return Cell(_spread(entry), bold, test is not None and test["p_value"] < SIGNIFICANT)


def _spread(figure: Mapping[str, Any]) -> str:
    deviation = "" if figure["deviation"] is None else f" ± {percent(figure['deviation'])}"
    return percent(figure["mean"]) + deviation


def _difference(test: Mapping[str, float] | None) -> str:
    if test is None:
        return NOT_AVAILABLE
    p = "p < 0.001" if test["p_value"] < 0.001 else f"p = {test['p_value']:.3f}"
    return f"{100 * test['difference']:+.2f} ({p})".replace("-", MINUS)


def _milliseconds(seconds: float | None) -> str:
    return NOT_AVAILABLE if seconds is None else f"{1000 * seconds:.1f}"
