"""Tables as Markdown and as LaTeX (booktabs)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amer.evaluation.markdown import markdown_table
from amer.files import atomic_write

MINUS = "\N{MINUS SIGN}"
NOT_AVAILABLE = "n/a"
MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>~$])")  # `markdown_table` escapes the bar
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # at the start of a row, "[" would begin an argument of the line break before it
        "±": r"$\pm$",
        "Δ": r"$\Delta$",
        MINUS: "$-$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


class Cell(NamedTuple):
    """Plain text of a cell, whether it is bold, and whether an asterisk follows."""

    text: str
    bold: bool = False
    asterisk: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Attributes:
        caption: Plain text that explains the numbers.
        header: Titles of the columns.
        groups: Groups of rows, with a rule between groups; a row has one cell per column.
        names: Number of columns on the left with names; the others hold numbers.
    """

    caption: str
    header: Sequence[str]
    groups: Sequence[Sequence[Sequence[Cell]]]
    names: int = 1

    def to_markdown(self) -> str:
        """The caption and the table in Markdown, with special characters escaped."""
        titles = [_markdown(Cell(title)) for title in self.header]
        rows = [[_markdown(cell) for cell in row] for group in self.groups for row in group]
        alignment = "l" * self.names + "r" * (len(titles) - self.names)
        return f"{_markdown(Cell(self.caption))}\n\n{markdown_table(titles, rows, alignment)}\n"

    def to_latex(self) -> str:
        r"""A `table` environment; its document needs `\usepackage{booktabs}`."""
        body = [_latex_lines(group) for group in self.groups]
        lines = [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_latex(Cell(self.caption))}}}",
            rf"\begin{{tabular}}{{{'l' * self.names}{'r' * (len(self.header) - self.names)}}}",
            r"\toprule",
            *_latex_lines([[Cell(title) for title in self.header]]),
            r"\midrule",
            *(line for number, group in enumerate(body) for line in ([r"\midrule"] if number else []) + group),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `path` with the suffixes `.md` and `.tex`, each whole or not at all."""
        for ending, text in ((".md", self.to_markdown()), (".tex", self.to_latex())):
            with atomic_write(Path(f"{os.fspath(path)}{ending}")) as temporary:
                temporary.write_text(text, encoding="utf-8")


def percent(share: float) -> str:
    """Format a share in percent without the percent sign: 0.62644 -> "62.64"."""
    return f"{100 * share:.2f}"


def gain_percent(gain: float | None) -> str:
    """Format a relative gain: 0.0579 -> "+5.79%"; a gain that rounds to zero -> "0.00%"."""
    if gain is None:
        return NOT_AVAILABLE
    text = f"{100 * gain:+.2f}%".replace("-", MINUS)
    return text[1:] if text[1:] == "0.00%" else text


def highest(shares: Iterable[float | None]) -> list[bool]:
    """Whether each share is the highest as printed: several for a tie, none if all are None."""
    printed = [None if share is None else round(100 * share, 2) for share in shares]
    best = max((share for share in printed if share is not None), default=None)
    return [share is not None and share == best for share in printed]


def _markdown(cell: Cell) -> str:
    text = MARKDOWN_SPECIAL.sub(r"\\\1", cell.text)
    return (f"**{text}**" if cell.bold else text) + (r"\*" if cell.asterisk else "")


def _latex(cell: Cell) -> str:
    text = cell.text.translate(LATEX)
    return (rf"\textbf{{{text}}}" if cell.bold else text) + ("$^{*}$" if cell.asterisk else "")


def _latex_lines(rows: Iterable[Iterable[Cell]]) -> list[str]:
    return [" & ".join(map(_latex, row)) + r" \\" for row in rows]
