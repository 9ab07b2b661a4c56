"""What commands say when they have done their work."""

from __future__ import annotations


def say(text: str) -> None:
    """A line on the terminal, never cut and never read as markup."""
    from rich.console import Console

    Console().print(text, markup=False, soft_wrap=True)
