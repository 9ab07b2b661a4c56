"""The command `amer`: one file a sub-command, each thin over the library.

Nothing here imports torch or transformers before a command runs, so that `--help` and shell completion are quick.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, that of the process by default, and end the process.

    Raises:
        SystemExit: 0, or 1 when the work failed, 2 when the command line is wrong, 130 when the user interrupted.
    """
    from amer.commands.app import app

    app(None if arguments is None else list(arguments), prog_name="amer")
