"""`amer fit`: one command from questions and documents to a model that searches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from amer.commands.terminal import say
from amer.offline import MINILM


def fit(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything; run again, it goes on there.")],
    source: Annotated[
        Literal["python-api"] | None,
        typer.Argument(metavar="[python-api]", help="The API reference of the Python packages installed here."),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Your own: {"query": ..., "positives": [ids or texts]} a line; .jsonl, .csv or .parquet.',
        ),
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Their documents: {"id": ..., "title": ..., "text": ...} a line; .jsonl or .parquet. The positives '
            "themselves when not given.",
        ),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="A sentence-transformers model that pools by the mean: a name on the Hub or a folder.")
    ] = MINILM,
    packages: Annotated[
        list[str] | None,
        typer.Option("--package", metavar="NAME", help="With python-api: a package to read. May be repeated."),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of forms that join questions, as in another language."),
    ] = None,
    num_train: Annotated[int, typer.Option(min=1, help="Questions of several parts to train on.")] = 20_000,
    train_steps: Annotated[int, typer.Option(min=1, help="Training steps of 64 questions.")] = 1_200,
) -> None:
    """Make a model of questions and documents, and see what it is worth.

    Questions are joined to questions of several parts. A small model learns to give each part a query vector, beside
    one vector trained alike. The report compares both with the encoder alone.

    \b
    amer fit --questions pairs.jsonl --documents docs.jsonl --output DIR
    amer fit python-api --output DIR
    """
    if (source is None) == (questions is None):
        raise typer.BadParameter("give python-api, or --questions")
    from rich.console import Console

    from amer.data.compound import TEMPLATES
    from amer.fitting import Settings
    from amer.fitting import fit as run

    try:
        settings = Settings(
            output, questions, documents, encoder, packages, templates or TEMPLATES, num_train, train_steps
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        run(settings, Console())
    except KeyboardInterrupt:
        say(f"\nWhat is done is kept in {output}: the same command goes on.")
        raise
