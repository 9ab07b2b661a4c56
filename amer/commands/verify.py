"""`amer verify`: does this machine give the vectors that were saved?"""

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
    base_model_revision: Annotated[str | None, typer.Option(help="Of --base-model: a commit, tag or branch.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the decoder. As it was trained when not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs.")] = "cpu",
) -> None:
    """Say whether a model gives the vectors that were saved with it.

    Exit code 1 means that it does not.
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
