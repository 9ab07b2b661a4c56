"""Which words of a question each query vector stands for, as a person can read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from modeling_amer import WordWeight

LEAST_SHARE = 0.2  # of a vector's greatest weight: what lies below is attention that went nowhere in particular
Span = tuple[int, int]
GAP = " … "


class VectorWords(NamedTuple):
    """The words that one query vector stands for.

    Attributes:
        text: the words, in the order of the question; " … " where others stand between them.
        spans: [start, end) in characters of the question, ascending.
    """

    text: str
    spans: list[Span]


def words_by_vector(question: str, weights: Sequence[Sequence[WordWeight]]) -> list[VectorWords]:
    """Give each word of a question to the query vector that has the greatest weight on it.

    A word on which that weight is small beside the vector's greatest one belongs to none, unless it stands between two
    words of one vector.

    Args:
        question: the text.
        weights: of each query vector its weight on each word that it read, as `model.attribute` gives them.

    Returns:
        the words of each query vector; none for a vector that has the greatest weight on no word.
    """
    by_word: dict[Span, dict[int, float]] = {}
    for vector, own in enumerate(weights):
        for word in own:
            by_word.setdefault((word.start, word.end), {})[vector] = word.weight
    words = sorted(by_word)
    most = [max((word.weight for word in own), default=0.0) for own in weights]
    owners = _joined([_owner(by_word[word], most) for word in words])
    runs = [(owner, list(run)) for owner, run in groupby(range(len(words)), key=owners.__getitem__)]
    found = []
    for vector in range(len(weights)):
        spans = [(words[run[0]][0], words[run[-1]][1]) for owner, run in runs if owner == vector]
        found.append(VectorWords(GAP.join(question[start:end] for start, end in spans), spans))
    return found


def _owner(weights: dict[int, float], most: Sequence[float]) -> int | None:
    """Which query vector a word belongs to: of its weights, by vector, the greatest, if it is not small."""
    vector = max(weights, key=weights.__getitem__)
    return vector if weights[vector] >= LEAST_SHARE * most[vector] > 0 else None


def _joined(owners: list[int | None]) -> list[int | None]:
    """The owners of the words, those without one between two words of one vector given to it."""
    joined, last = list(owners), None
    for place, owner in enumerate(owners):
        if owner is not None:
            if last is not None and owners[last] == owner:
                joined[last:place] = [owner] * (place - last)
            last = place
    return joined
