"""Which words of a question each query vector stands for, as a person can read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from modeling_amer import WordWeight

LEAST_SHARE = 0.2  # of a vector's greatest weight: what lies below is attention that went nowhere in particular
GAP = " … "


class Part(NamedTuple):
    """The words that one query vector stands for.

    Attributes:
        text: the words, in the order of the question; " … " where others stand between them.
        spans: [start, end) in characters of the question, ascending.
    """

    text: str
    spans: list[tuple[int, int]]


def question_parts(question: str, weights: Sequence[Sequence[WordWeight]]) -> list[Part]:
    """Give each word of a question to the query vector that has the greatest weight on it.

    A word on which that weight is small beside the vector's greatest one belongs to none, unless it stands between two
    words of one vector.

    Args:
        question: the text.
        weights: of each query vector its weight on each word, as `model.attribute` gives them.

    Returns:
        one part for each query vector; an empty one for a vector that has the greatest weight on no word.
    """
    owners = _owners(weights)
    runs = [(owner, list(places)) for owner, places in groupby(range(len(owners)), key=owners.__getitem__)]
    parts = []
    for vector, words in enumerate(weights):
        spans = [(words[places[0]].start, words[places[-1]].end) for owner, places in runs if owner == vector]
        parts.append(Part(GAP.join(question[start:end] for start, end in spans), spans))
    return parts


def _owners(weights: Sequence[Sequence[WordWeight]]) -> list[int | None]:
    """Of each word the query vector it belongs to."""
    owners: list[int | None] = []
    most = [max((word.weight for word in own), default=0.0) for own in weights]
    for words in zip(*weights, strict=True):
        vector = max(range(len(words)), key=lambda number: words[number].weight)
        owners.append(vector if words[vector].weight >= LEAST_SHARE * most[vector] > 0 else None)
    last = None
    for place, owner in enumerate(owners):
        if owner is not None:
            if last is not None and owners[last] == owner:
                owners[last : place + 1] = [owner] * (place - last + 1)
            last = place
    return owners
