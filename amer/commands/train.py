"""`amer train`: the command line of a training is read by transformers, as it has a field for everything."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG", help="A YAML file of fields, or mini, and --any_field value."),
    ] = None,
    fields: Annotated[bool, typer.Option("--fields", help="List every field with its default, and exit.")] = False,
) -> None:
    """Train a model, or go on with an interrupted training.

    Fields on the command line, `--any_field value`, win over those in the file.

    \b
    amer train configs/amer.yaml --dataset DIR --store DIR --output_dir OUT
    amer train mini --dataset DIR --store DIR --output_dir OUT  (questions of several parts)
    accelerate launch -m amer train configs/amer.yaml ...  (several GPUs)
    """
    if not fields and not arguments:
        raise typer.BadParameter("give a CONFIG, or fields: `amer train --help`")
    from amer.trainer import parsing, run

    if fields:
        parsing.parser().print_help()
        return
    try:
        settings = parsing.parse(arguments or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    run.train(*settings)
