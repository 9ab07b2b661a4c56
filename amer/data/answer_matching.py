"""Decides whether a text contains an answer as DPR does: token by token, ignoring case."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np


def normalise_answer(text: str) -> str:
    """Return the tokens of DPR's SimpleTokenizer (on NFD, uncased), joined by single spaces.

    A token is a run of letters, numbers and marks, or any other single character except separators and controls.
    Punctuation and articles are kept.
    """
    spaced = _token_breaks().sub(r" \1 ", unicodedata.normalize("NFD", text))
    return " ".join(spaced.split()).lower()


class AnswerMatcher:
    """Finds the answers of one query in texts, with the same result as DPR's `has_answer`.

    A text covers a target if it contains the tokens of one of the target's aliases in sequence (paper A.3): if the
    normalised text contains the normalised alias with a space on either side.
    """

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        """Normalise the aliases.

        Args:
            answers: The query's targets, each a list of aliases.

        Raises:
            ValueError: There is no target, a target has no aliases, or an alias has no token.
        """
        if isinstance(answers, str) or not len(answers):
            raise ValueError(f"the answers are {answers!r}: give at least one answer, each a list of aliases")
        self._aliases = [_bounded_aliases(number, aliases) for number, aliases in enumerate(answers)]

    def covers(self, texts: Sequence[str]) -> np.ndarray:
        """Return which texts contain which answers, `(texts, targets)` bool."""
        found = np.zeros((len(texts), len(self._aliases)), dtype=bool)
        for row, text in enumerate(texts):
            bounded = f" {normalise_answer(text)} "
            found[row] = [any(alias in bounded for alias in aliases) for aliases in self._aliases]
        return found


@cache
def _token_breaks() -> Any:
    """Where to break a text: at a character that is a token by itself (group 1), or a separator except the space.

    `str.split` handles spaces, the most frequent break, faster than a search for every token.
    """
    import regex

    return regex.compile(r"(?=[^\p{L}\p{N}\p{M} ])(?:([^\p{Z}\p{C}])|.)")


def _bounded_aliases(number: int, aliases: Sequence[str]) -> list[str]:
    """The distinct normalised aliases, with a space on either side so that they match only whole tokens."""
    if isinstance(aliases, str) or not len(aliases):
        raise ValueError(f"answer number {number} has the aliases {aliases!r}: give a list of strings, at least one")
    bounded = {f" {normalise_answer(alias)} ": alias for alias in aliases}
    if "  " in bounded:
        raise ValueError(
            f"answer number {number} has the alias {bounded['  ']!r}, which normalises to nothing: drop it"
        )
    return list(bounded)
