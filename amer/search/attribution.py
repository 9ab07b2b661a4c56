"""Find the words of a question that each query vector stands for, in a readable form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from modeling_amer import WordWeight

LEAST_SHARE = 0.2  # of a vector's greatest weight: smaller weights are diffuse attention
Span = tuple[int, int]
GAP = " … "


class VectorWords(NamedTuple):
    """The words that one query vector stands for.

    Attributes:
        text: The words in the order of the question, with " … " for gaps.
        spans: [start, end) in characters of the question, ascending.
    """

    text: str
    spans: list[Span]


def words_by_vector(question: str, weights: Sequence[Sequence[WordWeight]]) -> list[VectorWords]:
    """Assign each word of a question to the query vector with the greatest weight on it.

    If that weight is small compared with the vector's greatest weight, the word is assigned to no vector, unless its
    neighbours on both sides belong to the same vector.

    Args:
        question: The question.
        weights: The weights of each query vector on the words, from `model.attribute`.

    Returns:
        The words of each query vector. A vector without words gets an empty text and no spans.
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


def text_of(parts: Sequence[VectorWords], vector: int) -> str:
    """Return the words of a query vector.

    They are empty if the model names no words, or found fewer parts than when it made the vectors: rounding may decide
    where a question is split.
    """
    return parts[vector].text if vector < len(parts) else ""


def _owner(weights: dict[int, float], most: Sequence[float]) -> int | None:
    """Return the query vector with the greatest weight on a word, or None if that weight is small."""
    vector = max(weights, key=weights.__getitem__)
    return vector if weights[vector] >= LEAST_SHARE * most[vector] > 0 else None


def _joined(owners: list[int | None]) -> list[int | None]:
    """Fill gaps: a run of words without an owner, between two words of one vector, gets that vector."""
    joined, last = list(owners), None
    for place, owner in enumerate(owners):
        if owner is not None:
            if last is not None and owners[last] == owner:
                joined[last:place] = [owner] * (place - last)
            last = place
    return joined
