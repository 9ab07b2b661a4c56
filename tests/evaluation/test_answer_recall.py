from __future__ import annotations

import numpy as np
import pytest

import amer.data.answer_matching
from amer.evaluation import answer_mrecall_at_k, answer_recall_at_k, mrecall_at_k, normalise_answer, recall_at_k
from amer.evaluation.answer_recall import answer_ranks
from amer.evaluation.recall import NO_TARGET, NOT_FOUND


def test_normalisation_is_that_of_the_gold_mapping():
    assert normalise_answer is amer.data.answer_matching.normalise_answer


@pytest.mark.parametrize(
    ("text", "aliases", "found"),
    [
        ("He was born in New York City.", ["new york"], True),
        ("He was born in Yorkshire.", ["York"], False),
        ("In 1999, again.", ["1999"], True),
        ("In 19990 BC", ["1999"], False),
        ("Paris", ["Paris"], True),
        ("Known as the King", ["Elvis", "the king"], True),
        ("Known as the King", ["Elvis", "A King"], False),
        ("Paid $1,000 for it", ["1,000"], True),
        ("Paid $1,000 for it", ["1000"], False),
        ("known kings", ["king", "queen"], False),
        ("new car, york street", ["new york"], False),
    ],
)
def test_an_answer_is_found_at_token_boundaries_only(text, aliases, found):
    assert answer_recall_at_k([[text]], [[aliases]], 1).item() == found


def test_figures_are_those_of_ids_when_texts_are_ids():
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 12, size=(60, 8))
    targets = [
        [generator.integers(0, 12, generator.integers(1, 3)).tolist() for _ in range(generator.integers(1, 6))]
        for _ in rows
    ]
    texts = [[f"it is number{row}." for row in ranked] for ranked in rows]
    answers = [[[f"Number{row}" for row in cluster] for cluster in clusters] for clusters in targets]
    for k in (1, 4, 8):
        np.testing.assert_array_equal(answer_recall_at_k(texts, answers, k), recall_at_k(rows, targets, k))
        np.testing.assert_array_equal(answer_mrecall_at_k(texts, answers, k), mrecall_at_k(rows, targets, k))


def test_a_target_counts_at_the_first_text_that_has_it():
    texts = [["nothing", "red", "blue and red"], ["blue"]]
    answers = [[["red"], ["blue"], ["green"]], [["azure", "Blue"]]]
    ranks = answer_ranks(texts, answers, 3)
    assert ranks.tolist() == [[1, 2, NOT_FOUND], [0, NO_TARGET, NO_TARGET]]


def test_a_short_list_of_texts_is_like_padding():
    texts = [["x"], ["x", "y"], []]
    assert answer_recall_at_k(texts, [[["x"], ["y"]], [["y"]], [["x"]]], 2).tolist() == [0.5, 1, 0]


@pytest.mark.parametrize(
    ("texts", "answers", "message"),
    [
        ([["x"], ["x"]], [[["x"]], []], r"query number 1: the answers are \[\]"),
        ([["x"]], [[[]]], r"query number 0: answer number 0 has the aliases \[\]"),
        ([["x"]], [["x"]], "query number 0: answer number 0 has the aliases 'x'"),
        ([["x"], ["x"]], [[["x"]], [["x", "\t"]]], r"query number 1: answer number 0 has the alias '\\t'"),
        ([["x"]], [], "1 lists of texts for 0 queries"),
        ([[]], [[["x"]]], "k must lie in 1..0"),
    ],
)
def test_wrong_input_is_refused(texts, answers, message):
    with pytest.raises(ValueError, match=message):
        answer_mrecall_at_k(texts, answers, 1)
