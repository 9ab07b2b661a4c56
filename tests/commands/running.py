"""Commands in this process."""

from __future__ import annotations

from amer.commands.app import app


def amer(*arguments: object) -> int:
    """Run `amer ARGUMENTS`, whose errors are raised; the exit code."""
    return app(["--debug", *map(str, arguments)], standalone_mode=False) or 0
