"""`amer search`: ask a trained model, and see which query vector found which document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from amer.commands.options import (
    COLLECTION,
    Collection,
    Device,
    Index,
    Model,
    NumQueryVectors,
    Revision,
    Store,
    TrustRemoteCode,
)

if TYPE_CHECKING:
    from rich.table import Table

    from amer.search import Hit


def search(
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", help="One or more questions.")],
    model: Model,
    store: Store,
    index: Index = None,
    k: Annotated[int, typer.Option(min=1, help="Documents of each question.")] = 10,
    num_query_vectors: NumQueryVectors = None,
    filter: Annotated[
        str | None, typer.Option(help='Only documents whose metadata fulfil it, such as "year >= 1990".')
    ] = None,
    fusion: Annotated[
        Literal["round_robin", "reciprocal_rank", "max_score"] | None,
        typer.Option(help="How the lists become one. The model's own way when not given."),
    ] = None,
    collection: Collection = COLLECTION,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
) -> None:
    """Show the documents that a model finds for questions.

    It also shows which query vector found each document, and at which rank.

    \b
    amer search "bank" --model DIR --store DIR
    """
    from rich.console import Console

    from amer.search import Searcher

    searcher = Searcher.from_pretrained(
        model,
        store,
        index,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=revision,
        collection=collection,
    )
    answers = searcher.search(questions, k, num_query_vectors, fusion, filter=filter)
    for question, hits in zip(questions, answers, strict=True):
        Console().print(hits_table(question, hits))


def hits_table(question: str, hits: list[Hit]) -> Table:
    """One question's documents, best first."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(question), title_justify="left")
    for name in ("rank", "score", "query vector", "its rank"):
        table.add_column(name, justify="right")
    for name in ("id", "title", "text"):
        table.add_column(name)
    for rank, hit in enumerate(hits, start=1):
        numbers = (str(rank), f"{hit.score:.3f}", str(hit.found_by + 1), str(hit.found_at + 1))
        table.add_row(*numbers, escape(hit.id), escape(hit.title), escape(hit.text))
    return table
