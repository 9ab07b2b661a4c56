"""The facts about a training that the model's card states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amer.evaluation.markdown import markdown_table
from amer.evaluation.report import metric_label
from amer.hub_cards.images import TRAINING, has_curve
from amer.hub_cards.rendering import code, duration, number, repository, revision
from amer.machine import hardware_line


def training_facts(training: dict[str, Any] | None) -> dict[str, Any]:
    """The training's values for the template, as far as the record has them."""
    record = training or {}
    dataset = record.get("dataset") or {}
    splits = dataset.get("splits") or {}
    columns = list(dict.fromkeys(key for counts in splits.values() for key in counts))
    settings = {name: value for name, value in record.get("settings", {}).items() if value is not None}
    if settings.get("objective") == "mixture":  # which never feeds targets back
        settings.pop("scheduled_sampling", None)
    return {
        "training": training,
        "data_lines": list(_data_lines(dataset, record.get("store") or {})),
        "splits_table": markdown_table(
            ["Split", *(key.capitalize() for key in columns)],
            [[name, *(f"{n[key]:,}" if key in n else "" for key in columns)] for name, n in splits.items()],
        ),
        "process_lines": list(_process_lines(record)),
        "settings_table": markdown_table(["Setting", "Value"], ([code(k), number(v)] for k, v in settings.items())),
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        "curve": TRAINING if has_curve(training) else None,
    }


def _data_lines(dataset: dict[str, Any], store: dict[str, Any]) -> Iterator[str]:
    """The sources and licences of the questions and the documents, and the number of documents."""
    if dataset:
        yield f"Questions: {', '.join(_described(dataset))}"
    if store:
        count = [f"{store['count']:,} in all"] if "count" in store else []
        named = _described({**store, "name": None})  # "store", as a rule
        yield f"Documents: {', '.join([*named, *count, 'encoded once and frozen'])}"


def _described(source: dict[str, Any]) -> Iterator[str]:
    if source.get("repo_id"):
        yield repository(source["repo_id"], "datasets/") + revision(source.get("revision"))
    if source.get("source"):
        yield source["source"]
    elif source.get("name"):
        yield code(source["name"])
    if source.get("licence"):
        yield f"licence: {source['licence']}"
    if source.get("builder"):
        yield f"built by {code(source['builder'])}"


def _process_lines(record: dict[str, Any]) -> Iterator[str]:
    """Steps, batch, candidates, checkpoint, machine, duration and day, as far as the record has them."""
    batch, candidates, best = (record.get(name) for name in ("batch", "candidates_per_query", "best"))
    if "steps" in record:
        epochs = f" ({record['epochs']:.2g} epochs)" if record.get("epochs") else ""
        yield f"{record['steps']:,} steps{epochs}"
    if batch:
        parts = f"{batch['per_process']} in each of {batch['processes']} processes, {batch['accumulation']} times"
        made = "" if batch["effective"] == batch["per_process"] else f" ({parts} before a step)"
        yield f"Effective batch: {batch['effective']:,} questions{made}"
    if candidates:
        least, most = candidates["least"], candidates["most"]
        count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield f"Candidates for each query vector: {count} documents, the batch's targets and random negatives"
    if best:
        percent = "recall" in best["metric"]
        value = f"{100 * best['value']:.2f}%" if percent else number(best["value"])
        label = metric_label(best["metric"].removeprefix("eval_"))
        yield f"Kept: the checkpoint of step {best['step']}, the best on validation ({label} {value})"
    if "hardware" in record:
        yield f"Hardware: {hardware_line(record['hardware'])}"
    if "seconds" in record:
        yield f"Time: {duration(record['seconds'])}, validation included"
    if "date" in record:
        yield f"Finished: {record['date'][:10]}"
