"""Query expansion: the paper's prompt, lists in every dress, prose counted; rewrites filled up with the question."""

from __future__ import annotations

import pytest

from amer.baselines.chat import LocalChat
from amer.baselines.expansion import expand, keywords_of, rewrite

PROMPT = """\
Write a list of keywords for the given question. The goal is to help retrieving relevant documents to the question, \
which contains multiple answers, so generate keywords as diverse as possible. Do not generate similar keywords; they \
should be distinct. Just answer with the list, and do not generate anything else. Keywords are separated by commas.

Question: what does [N] mean in [Question]?"""


class Scripted:
    """Gives the replies it was given, one after another."""

    name = "scripted"

    def __init__(self, *replies: str) -> None:
        self.replies = iter(replies)
        self.prompts: list[str] = []

    def reply(self, prompts: list[str]) -> list[str]:
        self.prompts += prompts
        return [next(self.replies) for _ in prompts]


@pytest.mark.parametrize(
    "reply, keywords",
    [
        ("river, money, Bank of England", ["river", "money", "Bank of England"]),
        ("river,money,, Tilt ,", ["river", "money", "Tilt"]),
        ("- river\n- money\n\n- tilt", ["river", "money", "tilt"]),
        ("* river\n• money\n– tilt", ["river", "money", "tilt"]),  # noqa: RUF001
        ("1. river\n2) money\n(3) tilt\n 10. 1984", ["river", "money", "tilt", "1984"]),
        ("1. river, money\n2. tilt", ["river", "money", "tilt"]),
        ("river\r\nmoney\r\n", ["river", "money"]),
        ('"river", **money**, `tilt`', ["river", "money", "tilt"]),
        ("Here are some keywords:\n\n- river\n- money", ["river", "money"]),
        ("Keywords: river, money", ["river", "money"]),
        ("**Keywords:** river, money", ["river", "money"]),
        ("river, River, money, RIVER", ["river", "money"]),
        ("10,000 Maniacs, 3-D film", ["10,000 Maniacs", "3-D film"]),
        ("river", ["river"]),
        ("Martin Luther King Jr., U.S. history, St. Louis", ["Martin Luther King Jr.", "U.S. history", "St. Louis"]),
        ("one two three four five six seven eight, river", ["one two three four five six seven eight", "river"]),
        ("one two three four five six seven eight nine, river", []),
        ("A bank is an institution.", []),
        ("Sorry, I cannot answer this.", []),
        ("river, money\nDo you want more keywords?", []),
        ("Here are some keywords:", []),
        ("", []),
        (" \n,\n- \n", []),
    ],
)
def test_lists_are_read_and_prose_is_not(reply, keywords):
    assert keywords_of(reply) == keywords


def test_the_prompt_is_the_papers(tmp_path):
    chat = Scripted("letters, numbers")
    expand(["what does [N] mean in [Question]?"], chat, tmp_path / "replies.jsonl", False)
    assert chat.prompts == [PROMPT]


def test_prose_leaves_the_question_as_it_is_and_is_counted(tmp_path):
    replies = ["river, money", "A bank is a place where people keep all of their money.", "", "tilt"]
    questions = ["bank?", "bank, again? ", "bank!", "to bank"]
    expanded = expand(questions, Scripted(*replies), tmp_path / "replies.jsonl", False)
    assert expanded.queries == ["bank? river, money", "bank, again? ", "bank!", "to bank tilt"]
    assert expanded.keywords == [["river", "money"], [], [], ["tilt"]]
    assert expanded.prose == [(1, replies[1]), (2, "")]
    assert expanded.replies == replies
    again = expand(questions[::-1], Scripted(), tmp_path / "replies.jsonl", False)
    assert again.queries == expanded.queries[::-1]


def test_rewrites_follow_the_question_which_fills_up(tmp_path):
    replies = [
        "1. Which banks are there?\n2. What is called a bank?\n3. What banks?\n4. Too much",
        "Here they are:\n\n- WHICH LIGHT?\n- What is light?\n- what is light?\n- Lights?",
        "",
    ]
    questions = ["which bank?", "which light?", "which plane?"]
    chat = Scripted(*replies)
    rewritten = rewrite(questions, chat, 3, tmp_path / "replies.jsonl", False)
    assert rewritten.queries == [
        ["which bank?", "Which banks are there?", "What is called a bank?", "What banks?"],
        ["which light?", "What is light?", "Lights?", "which light?"],
        ["which plane?"] * 4,
    ]
    assert rewritten.short == [(1, replies[1]), (2, "")]
    assert rewritten.replies == replies
    assert "3 different" in chat.prompts[0] and chat.prompts[0].endswith("Question: which bank?")


def test_keywords_and_rewrites_may_share_a_file(tmp_path):
    chat = Scripted("river, money", "which bank?", "what bank?")
    assert expand(["bank"], chat, tmp_path / "replies.jsonl", False).keywords == [["river", "money"]]
    assert rewrite(["bank"], chat, 1, tmp_path / "replies.jsonl", False).queries == [["bank", "which bank?"]]
    assert rewrite(["bank"], chat, 2, tmp_path / "replies.jsonl", False).queries[0][1] == "what bank?"


@pytest.mark.parametrize("questions", ["bank", ["bank", " "], ["bank", None]])
def test_bad_questions_are_refused_before_anyone_is_asked(tmp_path, questions):
    for function in (expand, lambda *arguments: rewrite(*arguments[:2], 2, arguments[2])):
        with pytest.raises(TypeError, match="list of non-empty strings"):
            function(questions, Scripted(), tmp_path / "replies.jsonl")
    with pytest.raises(ValueError, match="n must"):
        rewrite(["bank"], Scripted(), 0, tmp_path / "replies.jsonl")
    assert not (tmp_path / "replies.jsonl").exists()


@pytest.mark.slow
def test_a_real_model_expands_questions(smollm2, tmp_path):
    questions = ["Which films did Sofia Coppola direct?", "bank"]
    expanded = expand(questions, LocalChat(smollm2, "SmolLM2", 12), tmp_path / "replies.jsonl", False)
    assert all(expanded.replies)
    for question, query, keywords in zip(questions, expanded.queries, expanded.keywords, strict=True):
        assert query == (f"{question} {', '.join(keywords)}" if keywords else question)
    assert any(expanded.keywords)
