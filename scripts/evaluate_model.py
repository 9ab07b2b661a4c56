"""Evaluate a trained model with several numbers of query vectors, beside the document encoder itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained AMER model: a folder or a name on the Hub")
    parser.add_argument("--dataset", required=True, help="directory of the dataset")
    parser.add_argument("--store", required=True, help="directory of the document store")
    parser.add_argument("--output", required=True, help="folder for results.json, report.md and a plot")
    parser.add_argument("--split", default="test", help="split of the dataset")
    parser.add_argument("--num_query_vectors", type=int, nargs="+", default=[1, 2, 3, 5], help="one system for each")
    parser.add_argument("--ks", type=int, nargs="+", default=[10, 100], help="cut-offs")
    parser.add_argument("--batch_size", type=int, default=64, help="queries encoded at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where it runs")
    return parser.parse_args(arguments)


def load_dataset(path: str, split: str, store: Any, device: str) -> Any:
    """One split, linked to the store; questions in text also get the document encoder's embeddings."""
    from amer.data import load_dataset_dir
    from amer.offline import resolve_model
    from amer.retrieval import DocumentEncoder

    splits = load_dataset_dir(path)
    if split not in splits:
        raise SystemExit(f"{path} has no split {split!r}: choose from {', '.join(splits)}")
    dataset = splits[split].link(store)
    if dataset.queries is None:
        return dataset
    weights = resolve_model(store.encoder["name"])
    encoder = DocumentEncoder(**store.encoder, device=device, model_path=weights)
    return dataset.with_query_vectors(encoder.encode_queries(dataset.queries, show_progress_bar=True))


def main() -> None:
    """Encode, search, report."""
    arguments = parse_arguments()
    from rich.console import Console

    from amer.evaluation import Report, evaluate_embeddings, evaluate_model, plot_by_diversity, target_similarity
    from amer.retrieval import DocumentStore, ExactIndex
    from modeling_amer import AMERModel

    store = DocumentStore.open(arguments.store)
    index = ExactIndex(store, arguments.device)
    dataset = load_dataset(arguments.dataset, arguments.split, store, arguments.device)
    model = AMERModel.from_pretrained(arguments.model).to(arguments.device)
    ks, batch_size = arguments.ks, arguments.batch_size
    systems = [
        evaluate_model(model, dataset, index, m, f"AMER, m = {m}", ks, batch_size, show_progress_bar=True)
        for m in dict.fromkeys(arguments.num_query_vectors)
    ]
    references = [systems[0].name]
    if dataset.queries is not None:
        systems.insert(0, evaluate_embeddings(dataset.query_vectors[:, None], dataset, index, "off-the-shelf", ks))
        references.insert(0, "off-the-shelf")

    metadata = {name: getattr(arguments, name) for name in ("model", "dataset", "split", "store")}
    report = Report(systems, target_similarity(dataset.target_rows, store), tuple(references), metadata)
    report.save(arguments.output)
    plot_by_diversity(report, f"mrecall@{max(ks)}", Path(arguments.output) / "by_diversity.png")
    Console().print(report.table())


if __name__ == "__main__":
    main()
