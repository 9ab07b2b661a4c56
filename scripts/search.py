"""Ask a trained model questions and show the documents each of its query vectors finds."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amer.corpus import DocumentEncoder, DocumentStore
from amer.hub import pull_folder
from amer.search import Hit, Searcher, open_index
from amer.search.fusion import FUSIONS
from amer.search.index.opening import COLLECTION
from modeling_amer import AMERModel


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained AMER model: a folder or a name on the Hub")
    parser.add_argument("--store", required=True, help="the document store: a folder or a name on the Hub")
    parser.add_argument("--questions", required=True, nargs="+", help="one or more questions")
    parser.add_argument("--k", type=int, default=10, help="documents per question")
    parser.add_argument("--num_query_vectors", type=int, help="per question; the model's own when not given")
    parser.add_argument("--filter", help='only documents whose metadata fulfil it, such as "year >= 1990"')
    parser.add_argument("--fusion", choices=[*FUSIONS], help="how lists become one; the model's own when not given")
    parser.add_argument("--index", help="a FAISS index's folder, Milvus' address or file; exact search when not given")
    parser.add_argument("--collection", default=COLLECTION, help="in Milvus, whose key is in MILVUS_TOKEN")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the encoder brings along")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where it runs")
    return parser.parse_args(arguments)


def load_searcher(given: Any, timeout: float = 60.0) -> Searcher:
    """What the fields `model`, `store`, `index`, `collection`, `device` and `trust_remote_code` name.

    Args:
        given: has those fields.
        timeout: seconds that a call to Milvus may take.
    """
    model = AMERModel.from_pretrained(given.model).to(given.device)
    store = DocumentStore.open(pull_folder(given.store))
    encoder = None
    if model.config.anchored:
        encoder = DocumentEncoder.from_identity(store.encoder, given.device, given.trust_remote_code)
    token = os.environ.get("MILVUS_TOKEN", "")
    index = open_index(store, given.index, given.device, given.collection, token, timeout)
    return Searcher(model, index, encoder=encoder)


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


def main(arguments: list[str] | None = None) -> None:
    """Search and show."""
    given, console = parse_arguments(arguments), Console()
    answers = load_searcher(given).search(
        given.questions, given.k, given.num_query_vectors, given.fusion, filter=given.filter
    )
    for question, hits in zip(given.questions, answers, strict=True):
        console.print(hits_table(question, hits))


if __name__ == "__main__":
    main()
