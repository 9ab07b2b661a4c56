"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], alignment: str = "") -> str:
    """A table, empty where there are no rows.

    Args:
        titles: of the columns.
        rows: their cells; a bar in one is escaped, and a line end becomes a space.
        alignment: "l" or "r" for each column; by default the first to the left and numbers, the others, to the right.
    """
    rows = list(rows)
    alignment = alignment or "l" + "r" * (len(titles) - 1)
    lines = [titles, ["---:" if side == "r" else "---" for side in alignment], *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) if rows else ""


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
