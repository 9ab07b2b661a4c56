"""From a report (`results.json`) to what a card shows of it: tables, and results in the Hub's format."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import EvalResult

from amer.evaluation.markdown import markdown_table
from amer.evaluation.report import SUBSETS, difference_cell, metric_label
from amer.hub import public_name
from amer.hub_cards.rendering import LINK, is_repository
from amer.hub_cards.updating import SOURCE

TASK = ("information-retrieval", "Information Retrieval")


def find_system(report: dict[str, Any], system: str | None) -> str:
    """The name in a report of the model that a card is about; what the report says itself when `system` is None.

    Raises:
        ValueError: the report does not say, or has no such system.
    """
    name = system or report["metadata"].get("system")
    if name not in report["systems"]:
        known = ", ".join(map(repr, report["systems"]))
        asked = "the report does not say which system the card is about" if name is None else f"no system {name!r}"
        raise ValueError(f"{asked}: choose one of its systems with system=: {known}")
    return name


def result_facts(report: dict[str, Any] | None, system: str | None) -> dict[str, Any]:
    """What the template asks of the evaluation."""
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
    """The metric that is spoken of: MRecall at the largest cut-off, or the last metric where there is none."""
    metrics = list(next(iter(report["systems"].values()))["metrics"])
    mrecalls = [metric for metric in metrics if metric.startswith("mrecall@")]
    return max(mrecalls, key=lambda metric: int(metric.partition("@")[2])) if mrecalls else metrics[-1]


def results_table(report: dict[str, Any], subset: str, system: str) -> str:
    """Every system of the report on the "whole" set or its "low_similarity" third, in %; `system` in bold."""
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
    """Differences to every reference with their intervals and p-values; empty where there is no other system."""
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
    """The best of the systems that search less often than this one, if it reaches as much of the headline metric."""
    metric, entries = headline_metric(report), report["systems"]
    reached = {name: entry["metrics"][metric]["whole"]["mean"] for name, entry in entries.items()}
    searches = {name: entry["searches_per_query"] for name, entry in entries.items()}
    cheaper = [name for name in entries if searches[name] < searches[system]]
    best = max(cheaper, key=lambda name: (reached[name], -searches[name]), default=system)
    if best == system or reached[best] < reached[system]:
        return None
    return {"name": best, "searches": searches[best], "mean": reached[best]}


def milliseconds(entry: dict[str, Any]) -> str:
    """Milliseconds for one query of a system, or nothing where they were not measured."""
    seconds = entry["seconds_per_query"]
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def report_facts(report: dict[str, Any]) -> dict[str, str]:
    """What the report says of itself, in public: without paths, and without what the card says elsewhere."""
    told = ("system", "model", "dataset_id")
    facts = {name: value for name, value in report["metadata"].items() if name not in told and value is not None}
    return {name: public_name(str(value)) for name, value in facts.items()}


def eval_entries(report: dict[str, Any], system: str, repo_id: str) -> list[dict[str, Any]]:
    """The system's means in the form of `.eval_results/*.yaml`, which the Hub puts on the leaderboard of the dataset.

    Returns:
        one entry a metric; none where the dataset is not on the Hub.
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
