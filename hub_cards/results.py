"""Turn a report (`results.json`) into a card's tables and into results in the Hub's format."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import EvalResult

from amer.baselines.splitting import TOLD
from amer.evaluation.markdown import markdown_table
from amer.evaluation.report import SUBSETS, difference_cell, metric_label
from amer.hub import public_name
from amer.hub_cards.rendering import LINK, is_repository
from amer.hub_cards.updating import SOURCE

TASK = ("information-retrieval", "Information Retrieval")


def find_system(report: dict[str, Any], system: str | None) -> str:
    """The name of a card's model in a report. Default: the system that the report names.

    Raises:
        ValueError: The report has no such system, or names none.
    """
    name = system or report["metadata"].get("system")
    if name not in report["systems"]:
        known = ", ".join(map(repr, report["systems"]))
        asked = "the report does not name the system of this card" if name is None else f"no system {name!r}"
        raise ValueError(f"{asked}: choose one of its systems with system=: {known}")
    return name


def result_facts(report: dict[str, Any] | None, system: str | None) -> dict[str, Any]:
    """The evaluation's values for the template."""
    if report is None:
        return {"report": None, "rival": None}
    system = find_system(report, system)
    entry, headline = report["systems"][system], headline_metric(report)
    return {
        "report": report,
        "report_facts": report_facts(report),
        "system": system,
        "whole_table": results_table(report, "whole", system),
        "low_table": results_table(report, "low_similarity", system),
        "comparison_table": comparison_table(report, system),
        "headline": metric_label(headline),
        "own_mean": entry["metrics"][headline]["whole"]["mean"],
        "searches": entry["searches_per_query"],
        "milliseconds": milliseconds(entry),
        "rival": rival(report, system),
    }


def headline_metric(report: dict[str, Any]) -> str:
    """The card's main metric: MRecall at the largest cut-off, or the last metric if there is no MRecall."""
    metrics = list(next(iter(report["systems"].values()))["metrics"])
    mrecalls = [metric for metric in metrics if metric.startswith("mrecall@")]
    return max(mrecalls, key=lambda metric: int(metric.partition("@")[2])) if mrecalls else metrics[-1]


def results_table(report: dict[str, Any], subset: str, system: str) -> str:
    """A table of every system on the "whole" set or its "low_similarity" third, in %; `system` in bold."""
    metrics = list(report["systems"][system]["metrics"])
    timed = any(entry["seconds_per_query"] is not None for entry in report["systems"].values())
    titles = ["System", "Searches", *(["ms"] if timed else []), *map(metric_label, metrics)]
    rows = []
    for name, entry in report["systems"].items():
        cells = [name, str(entry["searches_per_query"]), *([milliseconds(entry)] if timed else [])]
        cells += [f"{100 * entry['metrics'][metric][subset]['mean']:.2f}" for metric in metrics]
        rows.append([f"**{cell}**" if cell else "" for cell in cells] if name == system else cells)
    return markdown_table(titles, rows)


def comparison_table(report: dict[str, Any], system: str) -> str:
    """A table of differences to every reference, with intervals and p-values; empty if there is no other system."""
    titles = ["Against", "Metric"]
    titles += [f"{label}: {name}" for label in SUBSETS.values() for name in ("difference (95% CI)", "p")]
    rows = []
    for reference in report["references"]:
        for metric, subsets in report["systems"][system]["metrics"].items() if reference != system else ():
            tests = [subsets[subset]["against"][reference] for subset in SUBSETS]
            cells = [cell for test in tests for cell in (difference_cell(test), f"{test['p_value']:.4f}")]
            rows.append([reference, metric_label(metric), *cells])
    return markdown_table(titles, rows, alignment="llrrrr")


def rival(report: dict[str, Any], system: str) -> dict[str, Any] | None:
    """The best system with fewer searches than this one, if it is at least as good on the main metric; else None.

    A system that knows the true parts of the questions is no rival, because nobody can run it on other questions.
    """
    metric, entries = headline_metric(report), report["systems"]
    reached = {name: entry["metrics"][metric]["whole"]["mean"] for name, entry in entries.items()}
    searches = {name: entry["searches_per_query"] for name, entry in entries.items()}
    cheaper = [name for name in entries if name != TOLD and searches[name] < searches[system]]
    best = max(cheaper, key=lambda name: (reached[name], -searches[name]), default=system)
    if best == system or reached[best] < reached[system]:
        return None
    return {"name": best, "searches": searches[best], "mean": reached[best]}


def milliseconds(entry: dict[str, Any]) -> str:
    """Milliseconds per query of a system; an empty text if they were not measured."""
    seconds = entry["seconds_per_query"]
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def report_facts(report: dict[str, Any]) -> dict[str, str]:
    """The report's metadata for publication: without paths, and without facts that the card states elsewhere."""
    told = ("system", "model", "dataset_id")
    facts = {name: value for name, value in report["metadata"].items() if name not in told and value is not None}
    return {name: public_name(str(value)) for name, value in facts.items()}


def eval_entries(report: dict[str, Any], system: str, repo_id: str) -> list[dict[str, Any]]:
    """The system's means in the format of `.eval_results/*.yaml`, which the Hub shows on the dataset's leaderboard.

    Returns:
        One entry per metric; an empty list if the dataset is not on the Hub.
    """
    metadata = report["metadata"]
    dataset = metadata.get("dataset_id")
    if not dataset or not is_repository(dataset):
        return []
    searches = report["systems"][system]["searches_per_query"]
    split = f"split {metadata['split']}, " if metadata.get("split") else ""
    return [
        {
            "dataset": {"id": dataset, "task_id": metric},
            "value": subsets["whole"]["mean"],
            "source": {"url": f"{LINK}{repo_id}", "name": SOURCE},
            "notes": f"{split}{report['queries']:,} queries, {searches} searches a query",
        }
        for metric, subsets in report["systems"][system]["metrics"].items()
    ]


def eval_results(report: dict[str, Any], system: str, repo_id: str) -> list[EvalResult]:
    """The system's means, unrounded as in `results.json`, for the card's `model-index`."""
    metadata = report["metadata"]
    dataset = public_name(str(metadata.get("dataset", "unnamed")))
    identifier = metadata.get("dataset_id") or re.sub(r"[^a-z0-9.]+", "-", dataset.lower()).strip("-")
    return [
        EvalResult(
            task_type=TASK[0],
            task_name=TASK[1],
            dataset_type=identifier,
            dataset_name=dataset,
            dataset_split=metadata.get("split"),
            metric_type=metric,
            metric_name=metric_label(metric) + ("" if subset == "whole" else f", {label}"),
            metric_value=subsets[subset]["mean"],
            source_name=SOURCE,
            source_url=f"{LINK}{repo_id}",
        )
        for metric, subsets in report["systems"][system]["metrics"].items()
        for subset, label in SUBSETS.items()
    ]
