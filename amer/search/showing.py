"""A question and its documents on a terminal: words and hits of one query vector in one colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from amer.search.attribution import VectorWords
from amer.search.searcher import Hit

MOST_CHARACTERS = 240  # of a document's text
COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")


def coloured_question(question: str, parts: Sequence[VectorWords]) -> Text:
    """The question, the words of each part in the colour of its query vector."""
    text = Text(question)
    for vector, part in enumerate(parts):
        for start, end in part.spans:
            text.stylize(vector_colour(vector), start, end)
    return text


def hits_table(question: str, hits: Sequence[Hit], parts: Sequence[VectorWords] = ()) -> Table:
    """One question's documents, best first.

    Args:
        question: the title of the table.
        hits: as `Searcher.search` gives them.
        parts: as `Searcher.parts` gives them; the table then says which words of the question found a document.
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
            vector = Text(f"{hit.found_by + 1}: {parts[hit.found_by].text}", style=vector_colour(hit.found_by))
        cells = (escape(hit.id), escape(hit.title), escape(excerpt(hit.text)))
        table.add_row(str(rank), f"{hit.score:.3f}", vector, str(hit.found_at + 1), *cells)
    return table


def excerpt(text: str, most: int = MOST_CHARACTERS) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def vector_colour(vector: int) -> str:
    """The colour of a query vector, counted from 0."""
    return COLOURS[vector % len(COLOURS)]
