"""Evaluate a trained model with several numbers of query vectors, beside the document encoder itself and baselines."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from amer.search.index.opening import COLLECTION

if TYPE_CHECKING:
    from amer.corpus import DocumentStore
    from amer.data import RetrievalDataset
    from amer.evaluation import SystemResult
    from modeling_amer import AMERConfig, AMERModel

OFF_THE_SHELF = "off-the-shelf"
USUAL = (1, 2, 3, 5)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained AMER model: a folder or a name on the Hub")
    parser.add_argument("--dataset", required=True, help="the dataset: a folder or a name on the Hub")
    parser.add_argument("--store", required=True, help="the document store: a folder or a name on the Hub")
    parser.add_argument("--index", help="a FAISS index's folder, Milvus' address or file; exact search when not given")
    parser.add_argument("--collection", default=COLLECTION, help="in Milvus, whose key is in MILVUS_TOKEN")
    parser.add_argument("--output", required=True, help="folder for results.json, report.md and a plot")
    parser.add_argument("--baselines", nargs="+", default=[], help="other trained AMER models, such as Single-Query")
    parser.add_argument("--split", default="test", help="split of the dataset")
    parser.add_argument("--num_query_vectors", type=int, nargs="+", help=f"one system for each; None: {USUAL} below m")
    parser.add_argument("--ks", type=int, nargs="+", default=[10, 100], help="cut-offs")
    parser.add_argument("--batch_size", type=int, default=64, help="queries encoded at a time")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the encoder brings along")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where it runs")
    parsed = parser.parse_args(arguments)
    names = [baseline_name(name) for name in parsed.baselines]
    if len(names) > 2 or len({*names, OFF_THE_SHELF}) != len(names) + 1:
        parser.error(f"--baselines takes up to two models whose folders have different names, got {', '.join(names)}")
    return parsed


def baseline_name(model: str) -> str:
    """What a baseline is called in the report: the last part of its folder or its name on the Hub."""
    return Path(model).absolute().name


def load_dataset(
    path: Path, split: str, store: DocumentStore, device: str, batch_size: int, trust_remote_code: bool = False
) -> tuple[RetrievalDataset, float]:
    """One split, linked to the store; questions in text also get the document encoder's embeddings.

    Returns:
        the split, and the seconds that embedding a question took.
    """
    from amer.corpus import DocumentEncoder
    from amer.data import load_dataset_dir

    splits = load_dataset_dir(path)
    if split not in splits:
        raise SystemExit(f"{path} has no split {split!r}: choose from {', '.join(splits)}")
    dataset = splits[split].link(store)
    if dataset.queries is None:
        return dataset, 0.0
    encoder = DocumentEncoder.from_identity(store.encoder, device, trust_remote_code)
    started = time.perf_counter()
    vectors = encoder.encode_queries(dataset.queries, batch_size, show_progress_bar=True)
    return dataset.with_input_vectors(vectors), (time.perf_counter() - started) / len(dataset)


def numbers_of_vectors(asked: list[int] | None, own: int) -> list[int]:
    """Which m to evaluate: the model's own, and those asked for or else the usual ones below it."""
    others = [m for m in USUAL if m < own] if asked is None else asked
    return sorted({*others, own})


def description(config: AMERConfig) -> str:
    """What a baseline is, in words."""
    vectors = "one query vector" if config.num_query_vectors == 1 else f"{config.num_query_vectors} query vectors"
    return f"trained for {vectors}, {'anchored, ' if config.anchored else ''}objective {config.objective}"


def metadata_of(
    arguments: argparse.Namespace, system: str, baselines: dict[str, str], folder: Path, store: DocumentStore
) -> dict[str, Any]:
    """What the figures belong to, in words that mean something on another machine."""
    from amer.files import read_json
    from amer.hub import origin
    from amer.hub_cards.rendering import public_name
    from amer.machine import hardware, hardware_line, versions

    info, dataset = read_json(folder / "dataset.json"), origin(arguments.dataset, folder)
    return {
        "system": system,
        "model": public_name(arguments.model),
        "dataset": info.get("source") or dataset.get("repo_id") or dataset["name"],
        **({"dataset_id": dataset["repo_id"]} if "repo_id" in dataset else {}),
        "split": arguments.split,
        "corpus": f"{len(store):,} documents",
        "document encoder": store.encoder["name"],
        **{f"baseline {name}": what for name, what in baselines.items()},
        "batch size": arguments.batch_size,
        "machine": hardware_line(hardware(arguments.device)),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def main(arguments: list[str] | None = None) -> None:
    """Encode, search, report."""
    parsed = parse_arguments(arguments)
    from rich.console import Console

    from amer.corpus import DocumentStore
    from amer.evaluation import Report, evaluate_embeddings, evaluate_model, plot_by_diversity, target_similarity
    from amer.hub import pull_folder
    from amer.search import open_index
    from modeling_amer import AMERModel

    store, folder = DocumentStore.open(pull_folder(parsed.store)), pull_folder(parsed.dataset)
    token = os.environ.get("MILVUS_TOKEN", "")
    index, ks = open_index(store, parsed.index, parsed.device, parsed.collection, token), parsed.ks
    dataset, seconds = load_dataset(
        folder, parsed.split, store, parsed.device, parsed.batch_size, parsed.trust_remote_code
    )

    def evaluate(model: AMERModel, m: int, name: str) -> SystemResult:
        read = seconds if model.config.anchored else 0.0
        return evaluate_model(model, dataset, index, m, name, ks, parsed.batch_size, None, True, encoding_seconds=read)

    systems, baselines = [], {}
    if dataset.queries is not None:
        vectors = dataset.input_vectors[:, None]
        systems.append(evaluate_embeddings(vectors, dataset, index, OFF_THE_SHELF, ks, encoding_seconds=seconds))
        baselines[OFF_THE_SHELF] = "the document encoder's own vector of the question"
    for baseline in parsed.baselines:
        model, name = AMERModel.from_pretrained(baseline).to(parsed.device), baseline_name(baseline)
        systems.append(evaluate(model, model.config.num_query_vectors, name))
        baselines[name] = description(model.config)
    references = list(baselines)
    model = AMERModel.from_pretrained(parsed.model).to(parsed.device)
    own = model.config.num_query_vectors
    systems += [evaluate(model, m, f"AMER, m = {m}") for m in numbers_of_vectors(parsed.num_query_vectors, own)]
    if not parsed.baselines:
        references.append(systems[len(references)].name)

    metadata = metadata_of(parsed, f"AMER, m = {own}", baselines, folder, store)
    report = Report(systems, target_similarity(dataset.target_rows, store), tuple(references), metadata)
    report.save(parsed.output)
    plot_by_diversity(report, f"mrecall@{max(ks)}", Path(parsed.output) / "by_diversity.png")
    Console().print(report.table())


if __name__ == "__main__":
    main()
