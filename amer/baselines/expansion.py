"""A chat model adds keywords to questions (paper A.7), reformulates them, or splits them into parts."""

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
"""The prompt of paper A.7, word for word; the query replaces [Question]."""

REWRITE_PROMPT = (
    "Write [N] different reformulations of the given question. Each must ask for the same information in other words, "
    "and be understood without the others. Just answer with the reformulations, one a line, and do not generate "
    "anything else.\n\nQuestion: [Question]"
)
"""Our own prompt: the paper does not rewrite questions."""

SPLIT_PROMPT = (
    "List the separate things that the following question asks for. Write each on a line of its own, in the words of "
    "the question. Just answer with the list, and do not generate anything else.\n\nQuestion: [Question]"
)
"""Our own prompt: the paper does not split questions."""

BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,3}[.):])(?:\s+|$)")  # noqa: RUF001
SEPARATOR = re.compile(r",(?!\d)")  # the comma in 10,000 is no separator
QUOTES = " \t\r\"'`*“”‘’"  # noqa: RUF001
SENTENCE_END = re.compile(r"\w{3,}[.!?]$")  # "directed it.", not "Martin Luther King Jr."
LONGEST_KEYWORD, SHORTEST_SENTENCE = 8, 4  # words
MOST_PARTS = 8  # limit for the parts of a question, since a small chat model may repeat lines without end


class Expanded(NamedTuple):
    """Questions with keywords.

    Attributes:
        queries: For each question: the question, a space, and its keywords joined by ", "; or the question alone.
        keywords: The keywords of each question; none if the reply was not a list.
        replies: The chat model's reply to each question.
        prose: Question number -> reply, for the replies that were not lists.
    """

    queries: list[str]
    keywords: list[list[str]]
    replies: list[str]
    prose: list[tuple[int, str]]


class Rewritten(NamedTuple):
    """Questions in other words.

    Attributes:
        queries: n + 1 texts for each question: the question and n reformulations; the question pads a short list.
        replies: The chat model's reply to each question.
        short: Question number -> reply, for the questions with fewer than n reformulations.
    """

    queries: list[list[str]]
    replies: list[str]
    short: list[tuple[int, str]]


def expand(
    questions: Sequence[str], chat: Chat, cache_path: str | os.PathLike[str], show_progress_bar: bool = True
) -> Expanded:
    """Add keywords to questions (paper A.7).

    Args:
        questions: The questions, as text.
        chat: The chat model that writes the keywords.
        cache_path: A JSON Lines file that stores the replies (see `replies_to`).
        show_progress_bar: Show how many questions are answered.

    Raises:
        ValueError: `cache_path` is not a file of replies.
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
    """Write n reformulations of each question; `amer.search.reciprocal_rank` fuses their search results.

    Args:
        questions: The questions, as text.
        chat: The chat model that writes the reformulations.
        n: Number of reformulations; if a reply has more lines, the first n count.
        cache_path: A JSON Lines file that stores the replies (see `replies_to`); the file of `expand` works too.
        show_progress_bar: Show how many questions are answered.

    Raises:
        ValueError: n < 1, or `cache_path` is not a file of replies.
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
    """Split each question into parts with a chat model; `amer.search.round_robin` fuses their search results.

    Args:
        questions: The questions, as text.
        chat: The chat model that writes the parts.
        cache_path: A JSON Lines file that stores the replies (see `replies_to`); the file of `expand` works too.
        show_progress_bar: Show how many questions are answered.

    Returns:
        The parts of each question, at most eight; the question itself if the reply is empty.

    Raises:
        ValueError: `cache_path` is not a file of replies.
    """
    prompts = [SPLIT_PROMPT.replace("[Question]", question) for question in _checked(questions)]
    replies = replies_to(prompts, chat, cache_path, show_progress_bar)
    return [parts_of(reply) or [question] for question, reply in zip(questions, replies, strict=True)]


def parts_of(reply: str) -> list[str]:
    """The distinct lines of a reply to `SPLIT_PROMPT`, at most eight, without the label "Question:"."""
    return _distinct([re.sub(r"(?i)^question:\s*", "", line) for line in _lines(reply)])[:MOST_PARTS]


def keywords_of(reply: str) -> list[str]:
    """The distinct keywords of a reply that lists them, separated by commas or lines, with or without bullets.

    A reply is prose and has no keywords if an item has more than eight words or is a sentence: four words or more with
    a full stop, question mark or exclamation mark at the end. A first line that ends with a colon, or the label
    "Keywords:", introduces the list and is not an item.
    """
    items = [item for line in _lines(reply) for item in SEPARATOR.split(re.sub(r"(?i)^keywords:", "", line))]
    items = [item.strip(QUOTES) for item in items]
    return [] if any(map(_is_prose, items)) else _distinct(items)


def _is_prose(item: str) -> bool:
    words = len(item.split())
    return words > LONGEST_KEYWORD or (words >= SHORTEST_SENTENCE and bool(SENTENCE_END.search(item)))


def _lines(reply: str) -> list[str]:
    """The lines of a reply without bullets, numbers and quotes, and without a line that introduces the list."""
    lines = [BULLET.sub("", line).strip(QUOTES) for line in reply.strip().split("\n")]
    return lines[1:] if lines[0].endswith(":") else lines


def _distinct(texts: Sequence[str]) -> list[str]:
    """The distinct non-empty texts, compared without case."""
    distinct: dict[str, str] = {}
    for text in filter(None, texts):
        distinct.setdefault(text.casefold(), text)
    return list(distinct.values())


def _checked(questions: Sequence[str]) -> Sequence[str]:
    if isinstance(questions, str) or not all(isinstance(question, str) and question.strip() for question in questions):
        raise TypeError("questions must be a list of non-empty strings")
    return questions
