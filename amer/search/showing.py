"""Show a question and its documents on a terminal. Each query vector has a colour for its words and hits."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from amer.search.attribution import VectorWords, text_of
from amer.search.searcher import Hit

MOST_CHARACTERS = 240  # of a document's text that a table shows
COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")


def coloured_question(question: str, parts: Sequence[VectorWords]) -> Text:
    """Colour the words of each part of a question in the colour of its query vector."""
    text = Text(question)
    for vector, part in enumerate(parts):
        for start, end in part.spans:
            text.stylize(vector_colour(vector), start, end)
    return text


def hits_table(question: str, hits: Sequence[Hit], parts: Sequence[VectorWords] = ()) -> Table:
    """Make a table of a question's documents, best first.

    Args:
        question: The question, used as the title of the table.
        hits: Hits from `Searcher.search`.
        parts: Parts from `Searcher.parts`. With them, the table shows the words of the question that found a document.
    """
    table = Table(title=coloured_question(question, parts), title_justify="left", title_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("query vector", justify="left" if parts else "right")
    table.add_column("its rank", justify="right")
    for name in ("id", "title", "text"):
        table.add_column(name)
    for rank, hit in enumerate(hits, start=1):
        vector = Text(str(hit.found_by + 1))
        if parts:
            vector = Text(f"{hit.found_by + 1}: {text_of(parts, hit.found_by)}", style=vector_colour(hit.found_by))
        cells = (escape(hit.id), escape(hit.title), escape(excerpt(hit.text)))
        table.add_row(str(rank), f"{hit.score:.3f}", vector, str(hit.found_at + 1), *cells)
    return table


def excerpt(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def vector_colour(vector: int) -> str:
    """Return the colour of a query vector, counted from 0."""
    return COLOURS[vector % len(COLOURS)]
