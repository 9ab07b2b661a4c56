"""Words of a question and the query vectors they belong to."""

from __future__ import annotations

import re

from amer.search.attribution import words_by_vector
from modeling_amer import WordWeight

QUESTION = "sort the big list and plot it, now"


def parts(*weights: list[float], question: str = QUESTION) -> list[str]:
    words = [(found[0], found.start(), found.end()) for found in re.finditer(r"\w+|[^\w\s]", question)]
    found = words_by_vector(
        question, [[WordWeight(*w, x) for w, x in zip(words, own, strict=True)] for own in weights]
    )
    for part in found:
        assert part.text == " … ".join(question[start:end] for start, end in part.spans)
    return [part.text for part in found]


def test_a_word_belongs_to_the_vector_with_the_greatest_weight_on_it():
    first, second = [0.3, 0.1, 0.2, 0.3, 0.01, 0, 0, 0, 0], [0, 0, 0, 0.2, 0.01, 0.4, 0.3, 0.01, 0.01]
    assert parts(first, second) == ["sort the big list", "plot it"]


def test_a_weak_word_between_two_of_one_vector_belongs_to_it():
    assert parts([0.3, 0.01, 0.02, 0.3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.01, 0.4, 0.01, 0.01, 0.4]) == [
        "sort the big list", "plot it, now",
    ]  # fmt: skip


def test_words_of_others_in_between_are_left_out():
    assert parts([0.3, 0, 0, 0, 0, 0, 0, 0, 0.3], [0, 0.1, 0.1, 0.3, 0, 0.2, 0, 0, 0]) == [
        "sort … now", "the big list and plot",
    ]  # fmt: skip


def test_vectors_that_read_different_words_have_all_of_theirs():
    one = [WordWeight("sort", 0, 4, 0.9), WordWeight("the", 5, 8, 0.3)]
    two = [WordWeight("and", 18, 21, 0.4), WordWeight("plot", 22, 26, 0.5)]
    assert [words.text for words in words_by_vector(QUESTION, [one, two])] == ["sort the", "and plot"]


def test_a_vector_may_own_no_word_and_one_vector_owns_them_all():
    assert parts([0.3] * 9, [0.2] * 9) == [QUESTION, ""]
    assert parts([0.0] * 9) == [""] and parts([0.3] * 9) == [QUESTION]
    assert words_by_vector("", [[], []]) == [("", []), ("", [])]
