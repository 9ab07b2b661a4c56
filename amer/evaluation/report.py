"""Reports of several systems on the same queries: a table for the terminal, Markdown, and JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amer.evaluation.diversity import low_similarity_third, similarity_quartiles
from amer.evaluation.evaluate import SystemResult, summarise
from amer.evaluation.markdown import markdown_table
from amer.files import atomic_write, write_json

if TYPE_CHECKING:
    from rich.table import Table

MARKS = "†‡§"  # one for each reference; an asterisk has a meaning in Markdown
SIGNIFICANT = 0.05
LABELS = {"mrecall": "MRecall", "ndcg": "nDCG", "map": "MAP", "mrr": "MRR", "alpha_ndcg": "alpha-nDCG"}
SUBSETS = {"whole": "whole set", "low_similarity": "low similarity third"}


@dataclass(frozen=True, eq=False)
class Report:
    """Compares several systems on the same queries.

    Attributes:
        systems: Results of the systems, in the order of the rows.
        similarity: `(q,)` target similarity of the queries (`amer.evaluation.target_similarity`).
        references: Names of up to three of the systems; every other system is tested against each of them.
        metadata: Description of the results (dataset, model, store, ...); values must be valid JSON.
        resamples: Number of resamples of the paired bootstrap.
        seed: Seed of the paired bootstrap.

    Raises:
        ValueError: A system has other metrics or queries than the first, two systems have one name, a reference is
            unknown, or there are fewer than four queries (too few for quartiles).
    """

    systems: Sequence[SystemResult]
    similarity: np.ndarray
    references: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a report needs at least one system, and different names, got {names}")
        if len(self.similarity) < 4:
            raise ValueError(f"a report needs at least four queries, got {len(self.similarity)}")
        for system in self.systems:
            if len(system) != len(self.similarity) or list(system.values) != self.metrics:
                raise ValueError(
                    f"system {system.name!r} has {', '.join(system.values)} of {len(system)} queries; "
                    f"all systems must have {', '.join(self.metrics)} of {len(self.similarity)}"
                )
        unknown = [name for name in self.references if name not in names]
        if isinstance(self.references, str) or unknown or len(self.references) > len(MARKS):
            raise ValueError(f"references must be a tuple of up to {len(MARKS)} of {names}, got {self.references!r}")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, in order."""
        return list(self.systems[0].values)

    @cached_property
    def summary(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """System -> its summary by `amer.evaluation.summarise`."""
        references = [system for system in self.systems if system.name in self.references]
        return {
            system.name: summarise(system, self.similarity, references, self.resamples, self.seed)
            for system in self.systems
        }

    def by_quartile(self, metric: str) -> dict[str, list[float]]:
        """System -> its mean in each quarter of the queries, from the most diverse targets to the least.

        Raises:
            ValueError: The report lacks the metric.
        """
        if metric not in self.metrics:
            raise ValueError(f"the report has no {metric!r}: choose from {', '.join(self.metrics)}")
        quarter = similarity_quartiles(self.similarity)
        return {
            system.name: [float(system.values[metric][quarter == place].mean()) for place in range(4)]
            for system in self.systems
        }

    def quartile_ranges(self) -> list[list[float]]:
        """Least and greatest target similarity in each quarter of the queries, from the most diverse to the least."""
        quarter = similarity_quartiles(self.similarity)
        parts = [self.similarity[quarter == place] for place in range(4)]
        return [[float(part.min()), float(part.max())] for part in parts]

    def to_dict(self) -> dict[str, Any]:
        """The report without the values per query, as JSON types."""
        quartiles = {metric: self.by_quartile(metric) for metric in self.metrics}
        systems = {
            system.name: {
                "searches_per_query": system.searches_per_query,
                "seconds_per_query": system.seconds_per_query,
                "metrics": {
                    metric: {**summary, "quartiles": quartiles[metric][system.name]}
                    for metric, summary in self.summary[system.name].items()
                },
            }
            for system in self.systems
        }
        return {
            "metadata": self.metadata,
            "queries": len(self.similarity),
            "low_similarity_queries": self._count("low_similarity"),
            "mean_target_similarity": float(np.mean(self.similarity)),
            "quartile_ranges": self.quartile_ranges(),
            "references": list(self.references),
            "resamples": self.resamples,
            "seed": self.seed,
            "systems": systems,
        }

    def table(self) -> Table:
        """The means as a table for a terminal of 80 columns: `rich.print(report.table())`."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(caption=escape("\n".join(self._notes())), caption_justify="left")
        table.add_column("Mean over queries, in %")
        for title in self._titles("\n")[1:]:
            table.add_column(title, justify="right", no_wrap=True)
        for subset, label in SUBSETS.items():
            table.add_row(f"[italic]{label}: {self._count(subset)}[/italic]")
            for name, *cells in self._rows(subset, lambda cell: f"[bold]{cell}[/bold]"):
                table.add_row(escape(name), *cells)
            table.add_section()
        return table

    def to_markdown(self) -> str:
        """The means, then differences, intervals and p-values against each reference."""
        facts = [f"- {name}: {value}" for name, value in self.metadata.items()]
        parts = ["# Retrieval report", *(["\n".join(facts)] if facts else []), "Means over queries, in %."]
        for subset, label in SUBSETS.items():
            rows = self._rows(subset, lambda cell: f"**{cell}**")
            heading = f"## {label.capitalize()}: {self._count(subset)} queries"
            parts += [heading, markdown_table(self._titles(" "), rows)]
        parts.append("\n".join(f"- {note}" for note in self._notes()))
        for reference in self.references:
            parts += [f"## Against {reference}", self._comparison(reference)]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `results.json` and `report.md` to a folder, each whole or not at all."""
        write_json(Path(folder) / "results.json", self.to_dict())
        with atomic_write(Path(folder) / "report.md") as temporary:
            temporary.write_text(self.to_markdown(), encoding="utf-8")

    def _titles(self, separator: str) -> list[str]:
        metrics = [metric_label(metric).replace("@", f"{separator.strip(' ')}@") for metric in self.metrics]
        return ["System", "searches", "ms", *metrics]

    def _rows(self, subset: str, bold: Callable[[str], str]) -> Iterable[list[str]]:
        """Yield a row for each system: the best of every column is bold, marks show differences from a reference."""
        best = {
            metric: max(summary[metric][subset]["mean"] for summary in self.summary.values())
            for metric in self.metrics
        }
        marks = list(zip(MARKS, self.references, strict=False))
        for system in self.systems:
            seconds = system.seconds_per_query
            row = [system.name, str(system.searches_per_query), "n/a" if seconds is None else f"{1000 * seconds:.1f}"]
            for metric in self.metrics:
                entry = self.summary[system.name][metric][subset]
                figure = f"{100 * entry['mean']:.2f}"
                tested = [(mark, entry["against"][name]) for mark, name in marks if name != system.name]
                differs = "".join(mark for mark, test in tested if test["p_value"] < SIGNIFICANT)
                row.append((bold(figure) if entry["mean"] == best[metric] else figure) + differs)
            yield row

    def _count(self, subset: str) -> int:
        return len(self.similarity) if subset == "whole" else int(low_similarity_third(self.similarity).sum())

    def _notes(self) -> list[str]:
        test = f"p < {SIGNIFICANT}, paired bootstrap, {self.resamples:,} resamples"
        return [
            "Low similarity third: the queries whose targets are least similar to each other.",
            "Searches and milliseconds are per query.",
            *(f"{mark} differs from {name} ({test})." for mark, name in zip(MARKS, self.references, strict=False)),
        ]

    def _comparison(self, reference: str) -> str:
        statistics = ("difference (95% CI)", "gain", "p")
        titles = ["System", "Metric", *(f"{label}: {name}" for label in SUBSETS.values() for name in statistics)]
        rows = []
        for system in self.systems:
            for metric in self.metrics if system.name != reference else ():
                tests = [self.summary[system.name][metric][subset]["against"][reference] for subset in SUBSETS]
                rows.append([system.name, metric_label(metric)])
                for test in tests:
                    gain = "n/a" if test["gain_percent"] is None else f"{test['gain_percent']:+.1f}%"
                    rows[-1] += [difference_cell(test), gain, f"{test['p_value']:.4f}"]
        return markdown_table(titles, rows)


def metric_label(metric: str) -> str:
    """The usual spelling of a metric: "mrecall@100" -> "MRecall@100", "ndcg@10" -> "nDCG@10", "loss" -> "Loss"."""
    name, at, cutoff = metric.partition("@")
    return LABELS.get(name, name.capitalize()) + at + cutoff


def difference_cell(test: dict[str, Any]) -> str:
    """Format the difference of a paired bootstrap with its interval, in %."""
    difference, low, high = (f"{100 * test[name]:+.2f}" for name in ("difference", "low", "high"))
    return f"{difference} ({low} to {high})"
