"""The paper's synthetic study at a small size (§5, Figure 3): can one or five vectors find five targets far apart?

It builds the data, trains AMER and the Single-Query baseline on each transformation, and reports MRecall on the test
set.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaModel

from amer.corpus import DocumentStore
from amer.data import load_dataset_dir
from amer.data.synthetic import build_synthetic
from amer.evaluation import evaluate_model, plot_training_curve
from amer.files import atomic_directory, read_json, write_json
from amer.search import ExactIndex
from amer.trainer import SINGLE_QUERY
from experiments.analysis import draw_figure3
from experiments.training_jobs import ROOT, Job, history, run_all
from modeling_amer import AMERModel

SYSTEMS = {
    "Single-Query": {**SINGLE_QUERY, "num_random_negatives": 1},  # one positive, one negative
    "AMER": {},
}
METRICS = ("mrecall@100", "mrecall@10")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse `arguments`, or the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "synthetic", help="folder for everything")
    parser.add_argument("--settings", nargs="+", default=["single"], choices=["single", "multi", "ood"])
    parser.add_argument("--transformations", nargs="+", default=["linear", "mlp"], choices=["linear", "mlp"])
    parser.add_argument("--dim", type=int, default=32, help="dimension of the vectors (paper: 1024)")
    parser.add_argument(
        "--num_train", type=int, default=20_000, help="training queries, including a tenth for validation"
    )
    parser.add_argument("--num_test", type=int, default=1_000, help="test queries")
    parser.add_argument("--corpus_size", type=int, default=200_000, help="number of targets and random vectors")
    parser.add_argument(
        "--config", type=Path, default=ROOT / "configs" / "synthetic.yaml", help="YAML file of the training"
    )
    parser.add_argument(
        "--base_model", help="decoder to train (paper: Llama-3.2-1B-Instruct); default: a small random one"
    )
    parser.add_argument("--per_device_train_batch_size", type=int, help="replaces the configuration's")
    parser.add_argument("--parallel", type=int, default=2, help="number of trainings at a time")
    parsed = parser.parse_args(arguments)
    parsed.output = parsed.output.resolve()  # a training is identified by the paths of its command line
    return parsed


def random_decoder(folder: Path, dim: int) -> Path:
    """Save a Llama with two layers and random weights as a base model, about twice as wide as the vectors (A.5)."""
    heads = max(4, dim // 16)
    width = 32 * heads
    path = folder / f"decoder-{width}"
    if not path.exists():
        torch.manual_seed(0)
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
        with atomic_directory(path) as temporary:
            LlamaModel(LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=8)).save_pretrained(temporary)
    return path


def evaluate(job: Job, data: Path) -> dict[str, float]:
    """MRecall and Recall on the test split, saved for later calls."""
    kept = job.output / "test.json"
    if not kept.is_file():
        store = DocumentStore.open(data / "store")
        model = AMERModel.from_pretrained(job.output)
        test = load_dataset_dir(data / "dataset")["test"]
        result = evaluate_model(model, test, ExactIndex(store), None, job.name, batch_size=512)
        write_json(kept, {name: float(values.mean()) for name, values in result.values.items()})
    return read_json(kept)


def build_data(arguments: argparse.Namespace, transformation: str, setting: str, console: Console) -> Path:
    """Build dataset and store of one transformation and setting; other sizes go to another folder."""
    sizes = {name: getattr(arguments, name) for name in ("dim", "num_train", "num_test", "corpus_size")}
    folder = arguments.output / "data" / "-".join([transformation, setting, *map(str, sizes.values())])
    if not folder.exists():
        console.print(f"Building {folder}")
        build_synthetic(folder, transformation=transformation, setting=setting, **sizes)
    return folder


def target_vectors(data: Path, most: int) -> list[np.ndarray]:
    """The targets of the first training questions: `(5, dim)` each."""
    store, questions = DocumentStore.open(data / "store"), load_dataset_dir(data / "dataset")["train"]
    targets = questions.select(range(min(most, len(questions)))).link(store).target_rows
    return list(store.vectors(np.array(targets)[:, :, 0]))


def train_and_evaluate(arguments: argparse.Namespace, console: Console) -> tuple[list[dict], dict[str, list]]:
    """Train what is not trained yet, and evaluate.

    Returns:
        The test results of every setting, system and transformation, and the training history of every run.
    """
    base = arguments.base_model or random_decoder(arguments.output, arguments.dim)
    runs = {}  # (setting, system, transformation) -> job and its data, the long jobs first
    choices = (arguments.settings, arguments.transformations)
    for system, setting, transformation in product(reversed(SYSTEMS), *choices):
        data = build_data(arguments, transformation, setting, console)
        name = f"{system} {transformation} {setting}"
        overrides = {"base_model": base, "dataset": data / "dataset", "store": data / "store", **SYSTEMS[system]}
        if arguments.per_device_train_batch_size:
            overrides["per_device_train_batch_size"] = arguments.per_device_train_batch_size
        job = Job(name, arguments.config, arguments.output / name.replace(" ", "-").lower(), overrides)
        runs[setting, system, transformation] = job, data
    run_all([job for job, _ in runs.values()], console, arguments.parallel)
    console.print("Searching and evaluating the test questions")
    results = [
        {**dict(zip(("setting", "system", "transformation"), key, strict=True)), **evaluate(*runs[key])}
        for key in product(arguments.settings, SYSTEMS, arguments.transformations)
    ]
    return results, {job.name: history(job) for job, _ in runs.values()}


def report(results: list[dict], histories: dict[str, list], arguments: argparse.Namespace, console: Console) -> None:
    """Print the table of Figure 3, and write its bars and the training curves as plots, and the numbers as JSON."""
    table = Table(title=f"Figure 3 in small: d = {arguments.dim}, corpus of {arguments.corpus_size:,}, test set, in %")
    for column in ("Setting", "Transformation", "System", "MRecall@10", "MRecall@100", "Recall@10"):
        table.add_column(column, justify="right" if "@" in column else "left")
    for row in results:
        figures = [f"{100 * row[name]:.1f}" for name in ("mrecall@10", "mrecall@100", "recall@10")]
        table.add_row(row["setting"], row["transformation"], row["system"], *figures)
    console.print(table)
    described = json.loads(json.dumps(vars(arguments), default=str))
    write_json(arguments.output / "results.json", {"arguments": described, "results": results})
    draw_figure3(results, METRICS, arguments.output / "figure3.png")
    plot_training_curve(histories, "eval_mrecall@10", arguments.output / "training.png")


def main() -> None:
    arguments, console, started = parse_arguments(), Console(), time.perf_counter()
    report(*train_and_evaluate(arguments, console), arguments, console)
    console.print(f"Everything is in {arguments.output}; this took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
