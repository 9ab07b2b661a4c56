"""Show the stages of a long job on a terminal: the current stage, its commands and its duration."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from amer.hub_cards.rendering import duration


class Stages:
    """Announces one stage after another.

    Attributes:
        seconds: Duration of each stage by its title, in order.
    """

    def __init__(self, console: Console, count: int) -> None:
        """Announce `count` stages on a console."""
        self.seconds: dict[str, float] = {}
        self._console, self._count = console, count

    @contextmanager
    def stage(self, title: str, *commands: list[str]) -> Iterator[None]:
        """Announce a stage, and print its duration at the end.

        Args:
            title: Title of the stage.
            commands: Words of the equivalent commands.
        """
        self._console.rule(f"{len(self.seconds) + 1}/{self._count}  {title}", align="left", style="dim")
        for command in commands:
            self._console.print(command_line(command), style="dim", markup=False, highlight=False, soft_wrap=True)
        started = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - started
        self._console.print(f"{title}: {duration(self.seconds[title])}", markup=False, highlight=False)


def command_line(words: list[str]) -> str:
    """A command as shell text."""
    return shlex.join(["amer", *words])
