"""Answer matching against a plain reading of DPR: one token after another, one alias after another."""

from __future__ import annotations

import random
import sys
import unicodedata

import numpy as np
import pytest
import regex

from amer.data.answer_matching import AnswerMatcher, normalise_answer

TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]", regex.IGNORECASE | regex.MULTILINE)
FILLER = "the of , and in 1999 \u201c river \u2013 Bänke ( ) of\u2019s".split()
# Letters and marks, signs whose lower case is another or depends on what follows, digits of other scripts; then
# punctuation, symbols, separators and controls of all kinds.
SIGNS = "aBz09 éÉe\u0301İ\u0131ßẞΣ\u03c3ςǅ٣Ⅷ²あ漢ख़्"
SIGNS += "_-'.,$👍🏽£€“\u2013…\t\n\r\0\x1c\x85\xa0\xad\u200b\u200d\u2028\u3000\ue000\ufeff"


def tokens(text: str) -> list[str]:
    return [token.lower() for token in TOKEN.findall(unicodedata.normalize("NFD", text))]


def has_answer(aliases: list[str], text: str) -> bool:
    words = tokens(text)
    for answer in map(tokens, aliases):
        for start in range(len(words) - len(answer) + 1):
            if words[start : start + len(answer)] == answer:
                return True
    return False


def covered(text: str, *aliases: str) -> bool:
    return AnswerMatcher([aliases]).covers([text]).item()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "the beatles !"),
        ("a U.S.-based\tband", "a u . s . - based band"),
        ("It's $1,000", "it ' s $ 1 , 000"),
        ("Émile", "e\u0301mile"),
        ("snake_case", "snake _ case"),
        ("one\u00adtwo\u200bthree\x00four\u2003five", "one two three four five"),
        ("ΟΔΟΣ", "οδος"),
        (" \n", ""),
    ],
)
def test_tokens_are_those_of_dpr(text, expected):
    assert normalise_answer(text) == expected


@pytest.mark.parametrize("signs", [SIGNS, [chr(code) for code in range(sys.maxunicode + 1)]], ids=["likely", "any"])
def test_any_text_becomes_the_tokens_of_the_plain_tokenizer(signs):
    chance = random.Random(0)
    for _ in range(2_000):
        text = "".join(chance.choices(signs, k=40))
        assert normalise_answer(text) == " ".join(tokens(text)), ascii(text)


@pytest.mark.slow
def test_every_character_is_cut_as_the_plain_tokenizer_cuts_it():
    for start in range(0, sys.maxunicode + 1, 256):
        text = " ".join(f"a{chr(code)}b" for code in range(start, start + 256))
        assert normalise_answer(text) == " ".join(tokens(text)), hex(start)


def test_matches_are_those_of_the_plain_loop():
    chance = random.Random(1)
    outcomes = []
    for _ in range(400):
        texts = ["".join(chance.choices("aAbé e\u0301.-Σ ", k=chance.randint(0, 30))) for _ in range(4)]
        answers = [
            ["x" + "".join(chance.choices("a bé.", k=3)), chance.choice(["a", "b", ".", "\u03c3"])] for _ in "ab"
        ]
        expected = [[has_answer(aliases, text) for aliases in answers] for text in texts]
        np.testing.assert_array_equal(AnswerMatcher(answers).covers(texts), expected)
        outcomes += [outcome for row in expected for outcome in row]
    assert 0.1 < np.mean(outcomes) < 0.9


@pytest.mark.parametrize("written", ["José Padilha", "JOSE\u0301 PADILHA", "josé  padilha", "(José\u00a0Padilha)"])
def test_a_planted_answer_is_found_in_every_position(written):
    matcher = AnswerMatcher([["Nobody", "José Padilha"], ["José"], ["Padilha."]])
    texts = [" ".join([*FILLER[:place], written, *FILLER[place:]]) for place in range(len(FILLER) + 1)]
    assert matcher.covers(texts).tolist() == [[True, True, False]] * len(texts)
    assert not matcher.covers([" ".join(FILLER)]).any()


@pytest.mark.parametrize(
    ("text", "alias", "found"),
    [
        ("Robocop (2014)", "2014", True),
        ("the 1980s.", "1980", False),
        ("the U.S. Army", "U.S.", True),
        ("the U.S. Army", "US", False),
        ("the US Army", "U.S.", False),
        ("rock\u2019n\u2019roll", "rock'n'roll", False),
        ("AC/DC", "ac / dc", True),
        ("a café", "cafe", False),
        ("Yorkshire", "York", False),
        ("New, York", "New York", False),
        ("new\u00adyork", "New York", True),
        ("on 4 November 2001", "November", True),
        ("İstanbul", "i\u0307stanbul", True),
    ],
)
def test_variants_match_where_their_tokens_do(text, alias, found):
    assert covered(text, alias) == found == has_answer([alias], text)


def test_one_alias_of_several_is_enough():
    assert covered("a city in Bohemia", "Praha", "Bohemia", "Prag")
    assert not covered("a city in Bavaria", "Praha", "Bohemia", "Prag")


def test_nothing_covers_nothing():
    assert AnswerMatcher([["x"], ["y"]]).covers([]).shape == (0, 2)
    assert not covered("", "x")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], r"the answers are \[\]"),
        ("Paris", "the answers are 'Paris'"),
        ([["x"], []], r"answer number 1 has the aliases \[\]"),
        (["Paris"], "answer number 0 has the aliases 'Paris'"),
        ([["x"], ["y", ""]], "answer number 1 has the alias '', which normalises to nothing"),
        ([["x", "\u200b \t"]], r"answer number 0 has the alias '\\u200b \\t'"),
    ],
)
def test_wrong_answers_are_refused(answers, message):
    with pytest.raises(ValueError, match=message):
        AnswerMatcher(answers)
