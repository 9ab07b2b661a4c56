"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], alignment: str = "") -> str:
    """Make a table, or an empty string if there are no rows.

    Args:
        titles: Titles of the columns.
        rows: Cells of each row; a `|` in a cell is escaped, and a line end becomes a space.
        alignment: "l" or "r" for each column. Default: the first column to the left, the others to the right.
    """
    rows = list(rows)
    alignment = alignment or "l" + "r" * (len(titles) - 1)
    lines = [titles, ["---:" if side == "r" else "---" for side in alignment], *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) if rows else ""


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
