"""Output of the commands on the terminal."""

from __future__ import annotations


def say(text: str) -> None:
    """Print a line on the terminal, without wrapping and without markup."""
    from rich.console import Console

    Console().print(text, markup=False, soft_wrap=True)
