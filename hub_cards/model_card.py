"""The model card: facts about a model, its training and its results, all from recorded runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData
from huggingface_hub.utils import yaml_dump
from rich.filesize import decimal

from amer.evaluation.markdown import markdown_table
from amer.files import atomic_write
from amer.hub_cards import results
from amer.hub_cards.images import BY_DIVERSITY, draw_images
from amer.hub_cards.model_facts import model_facts
from amer.hub_cards.rendering import code, is_repository, render
from amer.hub_cards.training_facts import training_facts
from amer.hub_cards.updating import assemble, update_card

if TYPE_CHECKING:
    from modeling_amer import AMERConfig

EVAL_RESULTS = ".eval_results/amer.yaml"
FILES = {
    "config.json": "what the model is: base and its commit, document encoder, prompt, LoRA",
    "model*.safetensors": "the weights",
    "model.safetensors.index.json": "which file holds which weight",
    "*.py": "the model's code",
    "tokenizer*": "the tokenizer",
    "chat_template.jinja": "the tokenizer's chat template",
    "adapter/*": "the LoRA weights in PEFT's format",
    "probe.json": "questions and their vectors, for `verify=True`",
    "modules.json": "for sentence-transformers' multi-vector encoder",
    "config_sentence_transformers.json": "for sentence-transformers' multi-vector encoder",
    "images/*": "the pictures of this card",
    ".eval_results/*": "the results, for the leaderboard of their dataset",
}
EXAMPLE = ["A bank is sloping land beside a body of water.", "A bank accepts deposits.", "Spring is a season."]


def model_card(
    config: AMERConfig,
    repo_id: str,
    training: dict[str, Any] | None = None,
    report: dict[str, Any] | None = None,
    system: str | None = None,
    folder: Path | None = None,
) -> str:
    """The card of a model; it shows the pictures that `write_model_card` writes.

    Args:
        config: Configuration of the saved model.
        repo_id: `org/name` on the Hub.
        training: Output of `training_record`. None: the card has no section on the training.
        report: Contents of `results.json`. None: the card has no figures.
        system: Name of this model in the report. Default: the one that the report names.
        folder: Folder of the saved model; the card lists its files with their sizes.

    Raises:
        ValueError: The report has no such system, or names none.
    """
    system = None if report is None else results.find_system(report, system)
    facts = {
        **model_facts(config, repo_id, training),
        **training_facts(training),
        **results.result_facts(report, system),
        "files_table": "" if folder is None else _files_table(folder),
        "by_diversity": BY_DIVERSITY,
    }
    return assemble(_metadata(config, repo_id, training, report, system).to_yaml(), render("model", **facts))


def write_model_card(
    folder: str | os.PathLike[str],
    config: AMERConfig,
    repo_id: str,
    training: dict[str, Any] | None = None,
    report: dict[str, Any] | None = None,
    system: str | None = None,
    existing: str | None = None,
) -> Path:
    """Write `README.md`, its pictures and `.eval_results/amer.yaml` into the folder of a saved model.

    Args:
        folder: Folder of the model; the card lists its files with their sizes.
        config: See `model_card` for this and the next four arguments.
        repo_id: `org/name` on the Hub.
        training: Output of `training_record`.
        report: Contents of `results.json`.
        system: Name of this model in the report.
        existing: Card whose hand-written parts are kept, such as the one on the Hub. Default: the folder's own.

    Returns:
        The path of the card.

    Raises:
        ValueError: As for `model_card` and `update_card`; nothing is written then.
    """
    folder = Path(folder)
    path = folder / "README.md"
    if existing is None and path.is_file():
        existing = path.read_bytes().decode("utf-8")
    system = None if report is None else results.find_system(report, system)
    facts = config, repo_id, training, report, system
    update_card(existing, model_card(*facts))  # raise errors before writing anything
    draw_images(folder, training, report, system)
    if report is not None and (entries := results.eval_entries(report, results.find_system(report, system), repo_id)):
        with atomic_write(folder / EVAL_RESULTS) as temporary:
            temporary.write_text(yaml_dump(entries), encoding="utf-8")
    with atomic_write(path) as temporary:
        temporary.write_bytes(update_card(existing, model_card(*facts, folder)).encode("utf-8"))
    return path


def _metadata(
    config: AMERConfig,
    repo_id: str,
    training: dict[str, Any] | None,
    report: dict[str, Any] | None,
    system: str | None,
) -> ModelCardData:
    base = config.base_model_name_or_path
    relation = "adapter" if config.weights == "adapter" else "finetune"
    dataset = ((training or {}).get("dataset") or {}).get("repo_id")
    on_the_hub = is_repository(base)
    reported = None
    if report is not None:
        reported = results.eval_results(report, results.find_system(report, system), repo_id)
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="sentence-similarity",  # the tag `feature-extraction` would offer a pipeline without the prompt
        tags=["amer", "retrieval", "dense-retrieval", "multi-query-retrieval", "custom_code", "arxiv:2511.02770"],
        datasets=[dataset] if dataset else None,
        metrics=sorted({result.metric_type.partition("@")[0] for result in reported}) if reported else None,
        model_name=repo_id.rpartition("/")[2] if reported else None,
        eval_results=reported,
        widget=[{"source_sentence": "bank", "sentences": EXAMPLE}] if config.takes_text else None,
        base_model=base if on_the_hub else None,
        base_model_relation=relation if on_the_hub else None,
    )


def _files_table(folder: Path) -> str:
    """A table of the model's files in the folder, with sizes; empty before the model is saved there."""
    if not any(folder.glob("model*.safetensors")):
        return ""
    rows, total = [], 0
    for pattern, meaning in FILES.items():
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob(pattern))]
        count = sum((folder / name).stat().st_size for name in names)
        if names:
            listed = ", ".join(map(code, names)) if len(names) <= 3 else f"{code(pattern)}, {len(names)} files"
            rows.append([listed, decimal(count), meaning])
            total += count
    return markdown_table(
        ["File", "Size", "What it is"], [*rows, ["**in all**", f"**{decimal(total)}**", ""]], alignment="lrl"
    )
