"""`amer train`: train a model. Transformers parses its many fields from the command line."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG", help="A YAML file of fields or `mini`, then options: --any_field value."),
    ] = None,
    fields: Annotated[bool, typer.Option("--fields", help="List every field with its default, and exit.")] = False,
) -> None:
    """Train a model, or resume an interrupted training.

    Fields on the command line, `--any_field value`, override those in the file.

    \b
    amer train configs/amer.yaml --dataset DIR --store DIR --output_dir OUT
    amer train mini --dataset DIR --store DIR --output_dir OUT  (questions of several parts)
    accelerate launch -m amer train configs/amer.yaml ...  (several GPUs)
    """
    if not fields and not arguments:
        raise typer.BadParameter("give a CONFIG or fields, see `amer train --help`")
    from amer.trainer import parsing, run

    if fields:
        parsing.parser().print_help()
        return
    try:
        settings = parsing.parse(arguments or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    run.train(*settings)
