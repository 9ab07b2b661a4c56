"""Whether a text contains an answer, as DPR decides it: by tokens, without regard to case."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np


def normalise_answer(text: str) -> str:
    """The tokens of DPR's SimpleTokenizer (on NFD, uncased), joined by single spaces.

    A token is a run of letters, numbers and marks, or one character of any other kind but separators and
    controls: punctuation marks and articles count.
    """
    spaced = _token_breaks().sub(r" \1 ", unicodedata.normalize("NFD", text))
    return " ".join(spaced.split()).lower()


class AnswerMatcher:
    """Finds the answers of one query in texts, with the outcome of DPR's `has_answer`.

    A text covers a target when the tokens of one of its aliases stand in it one after another (paper A.3): when the
    normalised text contains the normalised alias with a space on either side.
    """

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        """Normalise the aliases.

        Args:
            answers: the query's targets, each a list of aliases.

        Raises:
            ValueError: no target, a target without aliases, or an alias without a single token; names it.
        """
        if isinstance(answers, str) or not len(answers):
            raise ValueError(f"the answers are {answers!r}: give one list of aliases for each, at least one")
        self._aliases = [_bounded_aliases(number, aliases) for number, aliases in enumerate(answers)]

    def covers(self, texts: Sequence[str]) -> np.ndarray:
        """Which texts contain which answers, `(texts, targets)` bool."""
        found = np.zeros((len(texts), len(self._aliases)), dtype=bool)
        for row, text in enumerate(texts):
            bounded = f" {normalise_answer(text)} "
            found[row] = [any(alias in bounded for alias in aliases) for aliases in self._aliases]
        return found


@cache
def _token_breaks() -> Any:
    """What a text is cut at: a character that is a token by itself (group 1), or a separator other than the space.

    Spaces, most of all breaks, are left to `str.split`, which is faster than finding every token by itself.
    """
    import regex

    return regex.compile(r"(?=[^\p{L}\p{N}\p{M} ])(?:([^\p{Z}\p{C}])|.)")


def _bounded_aliases(number: int, aliases: Sequence[str]) -> list[str]:
    """The normalised aliases, each once, with a space on either side, so that they match whole tokens alone."""
    if isinstance(aliases, str) or not len(aliases):
        raise ValueError(f"answer number {number} has the aliases {aliases!r}: give a list of strings, at least one")
    bounded = {f" {normalise_answer(alias)} ": alias for alias in aliases}
    if "  " in bounded:
        raise ValueError(
            f"answer number {number} has the alias {bounded['  ']!r}, of which normalisation leaves nothing: drop it"
        )
    return list(bounded)
