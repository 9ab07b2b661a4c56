"""Questions of several parts that people would ask, written by hand: `natural_compounds.jsonl`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from amer.data.compound import HELD_OUT_TEMPLATES, TEMPLATES, load_templates

FILE = Path(__file__).with_name("natural_compounds.jsonl")
QUESTIONS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_there_are_thirty_of_two_or_three_parts():
    assert len(QUESTIONS) == len({question["query"] for question in QUESTIONS}) == 30
    assert {len(question["targets"]) for question in QUESTIONS} == {2, 3}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["query"][:30])
def test_every_part_is_marked_and_has_a_qualified_name(question):
    query, spans = question["query"], question["spans"]
    assert set(question) == {"query", "targets", "spans"} and len(spans) == len(question["targets"])
    ends = [end for _, end in spans]
    assert all(0 <= start < end <= len(query) for start, end in spans)
    assert all(end <= start for end, (start, _) in zip(ends, spans[1:], strict=False))  # in order, none in another
    for start, end in spans:  # whole words, and no more
        assert query[start].isalnum() and query[end - 1].isalnum()
        assert not query[start - 1 : start].isalnum() and not query[end : end + 1].isalnum()
    names = [name for targets in question["targets"] for name in targets]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]\w*(\.\w+)+", name) for name in names)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["query"][:30])
def test_no_template_joins_them(question):
    joined = question["query"]
    for start, end in reversed(question["spans"]):
        joined = joined[:start] + "{}" + joined[end:]
    for templates in (load_templates(file) for file in (TEMPLATES, HELD_OUT_TEMPLATES)):
        ask = "|".join(re.escape(text) for text in templates.asks)
        for form in templates.forms.get(len(question["spans"]), []):
            assert not re.fullmatch(re.escape(form).replace(re.escape("{ask}"), f"(?:{ask})"), joined, re.IGNORECASE)
