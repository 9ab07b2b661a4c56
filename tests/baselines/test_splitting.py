"""Questions split by rule and by spans, and a vector for each part."""

from __future__ import annotations

import numpy as np
import pytest

from amer.baselines.splitting import encode_parts, split_by_rule, split_by_spans


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("open a file and sort a list; then, close it?", ["open a file", "sort a list", "then", "close it"]),
        ("what is A? And what is B?", ["what is A", "what is B"]),
        ("the band's stand", ["the band's stand"]),
        ("sort a list", ["sort a list"]),
        ("?, and", ["?, and"]),
        ("東京、大阪", ["東京、大阪"]),
    ],
)
def test_the_rule_splits_at_marks_and_the_word_and(question, parts):
    assert split_by_rule(question) == parts


def test_spans_are_cut_out_and_none_leave_the_question_whole():
    assert split_by_spans("both a cat and a dog", [[5, 10], [15, 20]]) == ["a cat", "a dog"]
    assert split_by_spans("a cat", []) == ["a cat"]


def test_each_part_gets_its_vector_and_zeros_stand_for_none():
    texts = []

    def encode(parts):
        texts.extend(parts)
        return np.array([[len(part), 1] for part in parts])

    found = encode_parts([["a", "bb"], ["ccc"], ["d", "ee", "fff"]], encode)
    assert texts == ["a", "bb", "ccc", "d", "ee", "fff"] and found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], [[1, 2, 0], [3, 0, 0], [1, 2, 3]])
    np.testing.assert_array_equal(found[..., 1], [[1, 1, 0], [1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("parts", [[], [["a"], []]])
def test_a_question_without_parts_is_refused(parts):
    with pytest.raises(ValueError, match="at least one part"):
        encode_parts(parts, lambda texts: np.ones((len(texts), 2)))
