"""`amer search`: ask a trained model, and see which query vector found which document."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from amer.commands.options import (
    COLLECTION,
    Collection,
    Device,
    Dtype,
    Index,
    Model,
    NumQueryVectors,
    Revision,
    Store,
    TrustRemoteCode,
)


def search(
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", help="One or more questions.")],
    model: Model,
    store: Store,
    index: Index = None,
    k: Annotated[int, typer.Option(min=1, help="Documents per question.")] = 10,
    num_query_vectors: NumQueryVectors = None,
    filter: Annotated[
        str | None, typer.Option(help='Condition on the documents\' metadata, such as "year >= 1990".')
    ] = None,
    fusion: Annotated[
        Literal["round_robin", "reciprocal_rank", "max_score"] | None,
        typer.Option(help="How to fuse the ranked lists of the query vectors. Default: the model's own way."),
    ] = None,
    collection: Collection = COLLECTION,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Show the documents that a model finds for questions.

    It also shows which query vector found each document, and at which rank. For a model with token anchors, it also
    shows which words of the question that vector represents.

    \b
    amer search "bank" --model DIR --store DIR
    """
    from rich.console import Console

    from amer.search import Searcher
    from amer.search.showing import hits_table

    searcher = Searcher.from_pretrained(
        model,
        store,
        index,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=revision,
        collection=collection,
        dtype=dtype,
    )
    answers = searcher.search(questions, k, num_query_vectors, fusion, filter=filter)
    for question, hits in zip(questions, answers, strict=True):
        Console().print(hits_table(question, hits, searcher.parts(question, num_query_vectors)))
