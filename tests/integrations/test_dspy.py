"""DSPy: an agent calls a function that searches."""

from __future__ import annotations

import pytest

pytest.importorskip("dspy", reason="needs DSPy, whose requirements exclude python-dateutil 4")

import dspy
from dspy.utils import DummyLM

from tests.integrations.conftest import QUESTION


def test_an_agent_searches_and_reads_what_was_found(searcher):
    def search(question: str) -> list[str]:
        """Passages for a question, which may ask for several things at once."""
        return [f"{hit.part}: {hit.text}" for hit in searcher.search(question, k=4, attribute=True)[0]]

    thoughts = [
        {"next_thought": "look", "next_tool_name": "search", "next_tool_args": {"question": QUESTION}},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}},
        {"reasoning": "it is there", "answer": "a river"},
    ]
    with dspy.context(lm=DummyLM(thoughts)):
        answer = dspy.ReAct("question -> answer", tools=[search])(question=QUESTION)
    assert answer.answer == "a river"
    assert answer.trajectory["observation_0"] == search(QUESTION)
