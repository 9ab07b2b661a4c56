"""What a terminal shows of a search, with colours and without."""

from __future__ import annotations

import io

from rich.console import Console

from amer.search import Hit, VectorWords
from amer.search.showing import excerpt, hits_table

QUESTION = "sort [a] and plot b"
PARTS = [VectorWords("sort [a]", [(0, 8)]), VectorWords("plot b", [(13, 19)])]
HITS = [Hit("d0", 0.5, "[t]", "x " * 500, 1, 0), Hit("d1", 0.25, "u", "[y]", 0, 2)]


def shown(parts: list[VectorWords], terminal: bool) -> str:
    stream = io.StringIO()
    colours = "standard" if terminal else None
    Console(file=stream, width=200, force_terminal=terminal, color_system=colours).print(
        hits_table(QUESTION, HITS, parts)
    )
    return stream.getvalue()


def test_words_and_hits_of_a_vector_have_its_colour():
    text = shown(PARTS, terminal=True)
    for words, code in (("sort [a]", "36"), ("plot b", "33")):  # once in the question, once beside a hit
        assert any(f"{code}m{words}" in text for code in (code, f"1;{code}", f"1;3;{code}"))
        assert text.count(words) == 2
    assert "36m1: sort [a]" in text and "33m2: plot b" in text


def test_without_a_terminal_nothing_but_text_is_written():
    text = shown(PARTS, terminal=False)
    assert "\x1b" not in text and QUESTION in text
    assert all(words in text for words in ("1: sort [a]", "2: plot b", "[t]", "[y]", "0.500", "0.250"))


def test_without_parts_a_hit_has_the_number_of_its_vector():
    text = shown([], terminal=False)
    assert QUESTION in text and ":" not in text
    cells = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]
    assert [row[3] for row in cells if row[1]] == ["2", "1"]


def test_a_long_text_is_cut_and_has_one_line():
    assert excerpt("a\n  b ") == "a b"
    assert excerpt("word " * 100, 12) == "word word w…" and len(excerpt("x " * 500)) <= 240
