"""Questions that a chat model adds keywords to (paper A.7), puts in other words, or splits into their parts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from amer.baselines.chat import Chat
from amer.baselines.replies import replies_to

EXPANSION_PROMPT = (
    "Write a list of keywords for the given question. The goal is to help retrieving relevant documents to the "
    "question, which contains multiple answers, so generate keywords as diverse as possible. Do not generate similar "
    "keywords; they should be distinct. Just answer with the list, and do not generate anything else. Keywords are "
    "separated by commas.\n\nQuestion: [Question]"
)
"""Paper A.7, word for word; [Question] stands for the query."""

REWRITE_PROMPT = (
    "Write [N] different reformulations of the given question. Each must ask for the same information in other words, "
    "and be understood without the others. Just answer with the reformulations, one a line, and do not generate "
    "anything else.\n\nQuestion: [Question]"
)
"""Our own: the paper rewrites no questions."""

SPLIT_PROMPT = (
    "Write down what the question asks for, each thing on a line of its own, in the words of the question. A question "
    "that asks for one thing has one line. Just answer with the lines, and do not generate anything else.\n\n"
    "Question: difference between open a file and read the lines of a file\n"
    "Lines:\nopen a file\nread the lines of a file\n\n"
    "Question: what is the largest item of a list?\nLines:\nthe largest item of a list\n\n"
    "Question: [Question]\nLines:"
)
"""Our own: the paper splits no questions."""

BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,3}[.):])(?:\s+|$)")  # noqa: RUF001
SEPARATOR = re.compile(r",(?!\d)")  # the comma of 10,000 separates nothing
QUOTES = " \t\r\"'`*“”‘’"  # noqa: RUF001
SENTENCE_END = re.compile(r"\w{3,}[.!?]$")  # "directed it.", not "Martin Luther King Jr."
LONGEST_KEYWORD, SHORTEST_SENTENCE = 8, 4  # words
MOST_PARTS = 8  # of a question; a small chat model may write line after line


class Expanded(NamedTuple):
    """Questions with keywords.

    Attributes:
        queries: per question itself, a space, and its keywords joined by ", "; without keywords itself alone.
        keywords: per question; none where the reply was no list.
        replies: per question, as the chat model gave them.
        prose: the questions whose replies were no lists, by number, with these replies.
    """

    queries: list[str]
    keywords: list[list[str]]
    replies: list[str]
    prose: list[tuple[int, str]]


class Rewritten(NamedTuple):
    """Questions in other words.

    Attributes:
        queries: per question n + 1: itself, its reformulations, and itself again where they are too few.
        replies: per question, as the chat model gave them.
        short: the questions with fewer than n reformulations, by number, with the replies.
    """

    queries: list[list[str]]
    replies: list[str]
    short: list[tuple[int, str]]


def expand(
    questions: Sequence[str], chat: Chat, cache_path: str | os.PathLike[str], show_progress_bar: bool = True
) -> Expanded:
    """Add keywords to questions (paper A.7).

    Args:
        questions: as text.
        chat: writes the keywords.
        cache_path: a JSON Lines file that remembers the replies (see `replies_to`).
        show_progress_bar: show how many questions are answered.

    Raises:
        ValueError: `cache_path` holds something else.
    """
    prompts = [EXPANSION_PROMPT.replace("[Question]", question) for question in _checked(questions)]
    replies = replies_to(prompts, chat, cache_path, show_progress_bar)
    keywords = [keywords_of(reply) for reply in replies]
    both = zip(questions, keywords, strict=True)
    return Expanded(
        queries=[f"{question} {', '.join(words)}" if words else question for question, words in both],
        keywords=keywords,
        replies=replies,
        prose=[(number, reply) for number, reply in enumerate(replies) if not keywords[number]],
    )


def rewrite(
    questions: Sequence[str], chat: Chat, n: int, cache_path: str | os.PathLike[str], show_progress_bar: bool = True
) -> Rewritten:
    """Put each question in n other words; `amer.search.reciprocal_rank` fuses what their searches find.

    Args:
        questions: as text.
        chat: writes the reformulations.
        n: how many; of more than n lines in a reply the first n are taken.
        cache_path: a JSON Lines file that remembers the replies (see `replies_to`); may be that of `expand`.
        show_progress_bar: show how many questions are answered.

    Raises:
        ValueError: n < 1, or `cache_path` holds something else.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    prompt = REWRITE_PROMPT.replace("[N]", str(n))
    prompts = [prompt.replace("[Question]", question) for question in _checked(questions)]
    replies = replies_to(prompts, chat, cache_path, show_progress_bar)
    both = zip(questions, replies, strict=True)
    found = [_distinct([question, *_lines(reply)])[: n + 1] for question, reply in both]
    return Rewritten(
        queries=[queries + queries[:1] * (n + 1 - len(queries)) for queries in found],
        replies=replies,
        short=[(number, replies[number]) for number, queries in enumerate(found) if len(queries) <= n],
    )


def split(
    questions: Sequence[str], chat: Chat, cache_path: str | os.PathLike[str], show_progress_bar: bool = True
) -> list[list[str]]:
    """The parts of each question as the chat model writes them; `amer.search.round_robin` fuses their searches.

    Args:
        questions: as text.
        chat: writes the parts.
        cache_path: a JSON Lines file that remembers the replies (see `replies_to`); may be that of `expand`.
        show_progress_bar: show how many questions are answered.

    Returns:
        per question its parts, the first eight at most; itself where the reply is empty.

    Raises:
        ValueError: `cache_path` holds something else.
    """
    prompts = [SPLIT_PROMPT.replace("[Question]", question) for question in _checked(questions)]
    replies = replies_to(prompts, chat, cache_path, show_progress_bar)
    return [parts_of(reply) or [question] for question, reply in zip(questions, replies, strict=True)]


def parts_of(reply: str) -> list[str]:
    """The lines of a reply to `SPLIT_PROMPT`, each once, the first eight at most."""
    return _distinct(_lines(reply))[:MOST_PARTS]


def keywords_of(reply: str) -> list[str]:
    """The keywords of a reply that lists them, by commas or lines, with or without bullets; each once.

    A reply is prose, and has none, if one of its items has more than eight words, or is a sentence: four words or more
    with a full stop, a question mark or an exclamation mark at the end. A first line that ends with a colon announces
    the list, as does the label "Keywords:"; neither is an item.
    """
    items = [item for line in _lines(reply) for item in SEPARATOR.split(re.sub(r"(?i)^keywords:", "", line))]
    items = [item.strip(QUOTES) for item in items]
    return [] if any(map(_is_prose, items)) else _distinct(items)


def _is_prose(item: str) -> bool:
    words = len(item.split())
    return words > LONGEST_KEYWORD or (words >= SHORTEST_SENTENCE and bool(SENTENCE_END.search(item)))


def _lines(reply: str) -> list[str]:
    """The lines of a reply without bullets, numbers and quotes, and without the one that announces the others."""
    lines = [BULLET.sub("", line).strip(QUOTES) for line in reply.strip().split("\n")]
    return lines[1:] if lines[0].endswith(":") else lines


def _distinct(texts: Sequence[str]) -> list[str]:
    """The texts that are not empty, each once, whatever its case."""
    distinct: dict[str, str] = {}
    for text in filter(None, texts):
        distinct.setdefault(text.casefold(), text)
    return list(distinct.values())


def _checked(questions: Sequence[str]) -> Sequence[str]:
    if isinstance(questions, str) or not all(isinstance(question, str) and question.strip() for question in questions):
        raise TypeError("questions must be a list of strings that are not empty")
    return questions
