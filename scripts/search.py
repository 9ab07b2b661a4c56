"""Ask a trained model questions and show the documents each of its query vectors finds."""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amer.hub import pull_folder
from amer.retrieval import DocumentEncoder, DocumentStore, Hit, Searcher, open_index
from modeling_amer import AMERModel


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained AMER model: a folder or a name on the Hub")
    parser.add_argument("--store", required=True, help="the document store: a folder or a name on the Hub")
    parser.add_argument("--questions", required=True, nargs="+", help="one or more questions")
    parser.add_argument("--k", type=int, default=10, help="documents per question")
    parser.add_argument("--num_query_vectors", type=int, help="per question; the model's own when not given")
    parser.add_argument("--index", help="a FAISS index's folder, Milvus' address or file; exact search when not given")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the encoder brings along")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where it runs")
    return parser.parse_args()


def load_searcher(model: str, store: str, device: str, trust_remote_code: bool, index: str | None = None) -> Searcher:
    """The model, the store and its index, with the store's encoder where the model is anchored."""
    loaded = AMERModel.from_pretrained(model).to(device)
    documents = DocumentStore.open(pull_folder(store))
    encoder = None
    if loaded.config.anchored:
        encoder = DocumentEncoder.from_identity(documents.encoder, device, trust_remote_code)
    return Searcher(loaded, open_index(documents, index, device), encoder=encoder)


def hits_table(question: str, hits: list[Hit]) -> Table:
    """One question's documents, best first."""
    table = Table(title=escape(question), title_justify="left")
    for name in ("rank", "score", "query vector", "its rank"):
        table.add_column(name, justify="right")
    for name in ("id", "title", "text"):
        table.add_column(name)
    for rank, hit in enumerate(hits, start=1):
        numbers = (str(rank), f"{hit.score:.3f}", str(hit.found_by + 1), str(hit.found_at + 1))
        table.add_row(*numbers, escape(hit.id), escape(hit.title), escape(hit.text))
    return table


def main() -> None:
    """Search and show."""
    arguments = parse_arguments()
    searcher = load_searcher(
        arguments.model, arguments.store, arguments.device, arguments.trust_remote_code, arguments.index
    )
    console = Console()
    answers = searcher.search(arguments.questions, arguments.k, arguments.num_query_vectors)
    for question, hits in zip(arguments.questions, answers, strict=True):
        console.print(hits_table(question, hits))


if __name__ == "__main__":
    main()
