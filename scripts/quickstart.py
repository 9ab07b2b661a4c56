"""The whole path on real text: WordNet's senses, MiniLM's document vectors, SmolLM2 trained into an AMER retriever.

Every stage is kept in the output folder and not done again; delete a folder to repeat its stage.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus
from amer.data import RetrievalDataset, load_dataset_dir
from amer.data.wordnet import build_wordnet
from amer.evaluation import (
    Report,
    SystemResult,
    evaluate_embeddings,
    plot_by_diversity,
    plot_training_curve,
    target_similarity,
)
from amer.offline import resolve_model
from amer.search import ExactIndex, trained_fusion
from amer.trainer import SINGLE_QUERY
from experiments.study_data import add_input_vectors
from experiments.training_jobs import ROOT, Job, history, run_all
from modeling_amer import AMERModel

DECODER = "HuggingFaceTB/SmolLM2-135M-Instruct"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
SIZES = {"num_train": 5_000, "num_validation": 300, "num_test": None, "corpus_size": 25_000}
MIXTURES = {"AMER anchored mixture, m = 3": 3, "AMER anchored mixture, m = 1": 1}
NUM_QUERY_VECTORS = (1, 2, 3, 5)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "quickstart", help="folder for everything")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml", help="of the training")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time")
    return parser.parse_args()


def build_data(folder: Path, console: Console) -> tuple[Path, DocumentStore]:
    """Questions and corpus, the corpus encoded, and the encoder's own vector beside each question."""
    dataset = folder / "dataset"
    if not (folder / "senses").exists():
        console.print("Building WordNet senses from the extract in the package")
        build_wordnet(folder / "senses", **SIZES)
    console.print(f"Document encoder {ENCODER}")
    encoder = DocumentEncoder.from_identity({"name": ENCODER})
    documents = pq.read_table(folder / "senses" / "documents.parquet")
    console.print(f"Encoding {len(documents):,} glosses")
    store = encode_corpus(documents, encoder, folder / "store")
    if not dataset.exists():
        console.print("Encoding the questions")
        add_input_vectors(folder / "senses" / "dataset", encoder, dataset)
    return dataset, store


def training_jobs(arguments: argparse.Namespace, dataset: Path, store: DocumentStore) -> dict[str, Job]:
    """AMER and Single-Query, bare and anchored, and the anchored mixture of three and of one; the long ones first."""
    where = {"base_model": resolve_model(DECODER), "dataset": dataset, "store": store.path}
    mixture = {"anchored": True, "objective": "mixture"}
    systems = {
        "AMER": {},
        "AMER anchored": {"anchored": True},
        **{name: {**mixture, "num_query_vectors": m} for name, m in MIXTURES.items()},
        "Single-Query": SINGLE_QUERY,
        "Single-Query anchored": {**SINGLE_QUERY, "anchored": True},
    }
    return {
        name: Job(
            name,
            arguments.config,
            arguments.output / "-".join(re.findall(r"\w+", name.lower())),
            {**where, **overrides},
        )
        for name, overrides in systems.items()
    }


def evaluate(job: Job, test: RetrievalDataset, index: ExactIndex) -> list[SystemResult]:
    """Test figures of a trained model; AMER as in the paper is searched with each number of vectors."""
    model = AMERModel.from_pretrained(job.output)
    config, vectors = model.config, test.input_vectors if model.config.anchored else None
    query_embeddings = model.encode_query(test.queries, show_progress_bar=True, input_vectors=vectors)
    fusion = trained_fusion(config.objective, config.loss_temperature)
    if config.objective == "mixture" or config.num_query_vectors == 1:
        return [evaluate_embeddings(query_embeddings, test, index, job.name, fusion=fusion)]
    return [  # the first m of five vectors are those of a search with m
        evaluate_embeddings(query_embeddings[:, :m], test, index, f"{job.name}, m = {m}", fusion=fusion)
        for m in NUM_QUERY_VECTORS
    ]


def main() -> None:
    arguments, console, started = parse_arguments(), Console(), time.perf_counter()
    dataset, store = build_data(arguments.output / "data", console)
    jobs = training_jobs(arguments, dataset, store)
    run_all(list(jobs.values()), console, arguments.parallel)

    console.print("Searching and evaluating the test questions")
    test, index = load_dataset_dir(dataset)["test"].link(store), ExactIndex(store)
    systems = [evaluate_embeddings(test.input_vectors[:, None], test, index, "off-the-shelf MiniLM")]
    for name in ("Single-Query", "AMER", "Single-Query anchored", "AMER anchored", *MIXTURES):
        systems += evaluate(jobs[name], test, index)
    metadata = {
        "dataset": f"WordNet 3.0 senses, {len(test):,} test lemmas",
        "corpus": f"{len(store):,} glosses",
        "decoder": DECODER,
        "document encoder": ENCODER,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    references = ("Single-Query", "off-the-shelf MiniLM", "Single-Query anchored")
    report = Report(systems, target_similarity(test.target_rows, store), references, metadata)
    report.save(arguments.output)
    plot_by_diversity(report, "mrecall@100", arguments.output / "by_diversity.png")
    histories = {name: history(job) for name, job in jobs.items()}
    plot_training_curve(histories, "eval_recall@100", arguments.output / "training.png")
    console.print(report.table())
    console.print(f"Everything is in {arguments.output}; this took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
