"""`amer fit`: one command that turns questions and documents into a search model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from amer.commands.terminal import say
from amer.offline import MINILM


def fit(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for all results. Run again to resume.")],
    source: Annotated[
        Literal["python-api"] | None,
        typer.Argument(metavar="[python-api]", help="Use the API reference of the Python packages installed here."),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Your questions: a .jsonl, .csv or .parquet file with one {"query": ..., "positives": [ids or '
            "texts]} per record.",
        ),
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Your documents: a .jsonl or .parquet file with one {"id": ..., "title": ..., "text": ...} per '
            "record. Default: the positives themselves.",
        ),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="A sentence-transformers model with mean pooling: a name on the Hub or a folder.")
    ] = MINILM,
    packages: Annotated[
        list[str] | None,
        typer.Option("--package", metavar="NAME", help="With python-api: a package to read. May be repeated."),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of templates that join questions, for example in your language."),
    ] = None,
    num_train: Annotated[int, typer.Option(min=1, help="Questions of several parts to train on.")] = 20_000,
    train_steps: Annotated[int, typer.Option(min=1, help="Training steps of 64 questions.")] = 1_200,
) -> None:
    """Train a small model on questions and documents, and evaluate it.

    The command joins questions into questions of several parts. A small model learns to make one query vector for
    each part; a second model, trained the same way, makes one vector per question. The report compares both with the
    encoder alone.

    \b
    amer fit --questions pairs.jsonl --documents docs.jsonl --output DIR
    amer fit python-api --output DIR
    """
    if (source is None) == (questions is None):
        raise typer.BadParameter("give either python-api or --questions")
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
        say(f"\nFinished work is kept in {output}: run the same command to resume.")
        raise
