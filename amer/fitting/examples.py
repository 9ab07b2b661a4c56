"""Ask the new model some test questions, and show which part of a question found which document."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from amer.data import RetrievalDataset
from amer.search import Hit, VectorWords
from amer.search.attribution import text_of
from amer.search.showing import coloured_question, excerpt, vector_colour

PARTS = (2, 3, 1)  # number of parts of each example question
HITS_A_PART = 2
MOST_CHARACTERS = 60


def example_questions(test: RetrievalDataset) -> list[str]:
    """The first question with two parts, with three and with one, as far as they exist; hits play no role."""
    first: dict[int, str] = {}
    for question, targets in zip(test.queries or [], test.targets, strict=True):
        first.setdefault(len(targets), question)
    return [first[number] for number in PARTS if number in first]


def example_table(question: str, hits: Sequence[Hit], parts: Sequence[VectorWords]) -> Table:
    """A table of the best documents of a question, each next to the words that found it."""
    table = Table(title=coloured_question(question, parts), title_justify="left", title_style="bold", box=None)
    table.add_column("found by", ratio=2)
    table.add_column("document", ratio=3)
    for hit in hits[: HITS_A_PART * len(parts)]:
        document = f"[bold]{escape(hit.title)}[/bold] " if hit.title else ""
        words = Text(text_of(parts, hit.found_by), style=vector_colour(hit.found_by))
        table.add_row(words, document + escape(excerpt(hit.text, MOST_CHARACTERS)))
    return table
