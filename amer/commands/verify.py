"""`amer verify`: check that a model gives the saved vectors on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amer.commands.options import Revision


def verify(
    model: Annotated[str, typer.Argument(help="A folder or a name on the Hub.")],
    revision: Revision = None,
    base_model: Annotated[
        str | None, typer.Option(help="Another copy of the base: a folder or a name on the Hub.")
    ] = None,
    base_model_revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of --base-model.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the decoder. Default: the precision it was trained in.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device to run on.")] = "cpu",
) -> None:
    """Check that a model gives the vectors that were saved with it.

    The exit code is 1 if it does not.
    """
    from rich.console import Console

    from modeling_amer import AMERModel, Probe

    fields = {"base_model_name_or_path": base_model, "base_model_revision": base_model_revision, "dtype": dtype}
    options: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    loaded = AMERModel.from_pretrained(model, revision=revision, **options).to(device)
    report = Probe.from_pretrained(model, revision=revision).compare(loaded)
    name = Path(model).name if Path(model).is_dir() else model
    Console().print(f"{name}: {report}", soft_wrap=True, highlight=False)
    if not report.reproduced:
        raise typer.Exit(1)
