"""The command `amer`: one file per sub-command, each a thin layer over the library.

These modules import torch and transformers only when a command runs, so `--help` and shell completion are quick.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (default: that of the process) and exit.

    Raises:
        SystemExit: 0 on success, 1 if the work failed, 2 if the command line is wrong, 130 if the user interrupted.
    """
    from amer.commands.app import app

    app(None if arguments is None else list(arguments), prog_name="amer")
