"""Recall@k and MRecall@k by answer string: a text covers a target when it contains one of the target's aliases."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

from amer.evaluation.recall import NO_TARGET, NOT_FOUND, check_depth, mrecall_from_ranks, recall_from_ranks

Answers = Sequence[Sequence[Sequence[str]]]
"""Per query its targets, each a list of aliases."""

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_mrecall_at_k(texts: Sequence[Sequence[str]], answers: Answers, k: int) -> np.ndarray:
    """MRecall@k as in `amer.evaluation.recall.mrecall_at_k`, with answer strings in the place of documents.

    Args:
        texts: per query the retrieved texts, best first; a list may be short where the corpus had no more.
        answers: per query its targets, each a list of aliases.
        k: cut-off, at most the length of the longest list.

    Returns:
        `(q,)` float64 of 0 and 1.

    Raises:
        ValueError: k out of range, other lengths, a query without targets, a target without aliases, or an alias of
            which normalisation leaves nothing.
    """
    return mrecall_from_ranks(answer_ranks(texts, answers, k), k)


def answer_recall_at_k(texts: Sequence[Sequence[str]], answers: Answers, k: int) -> np.ndarray:
    """The fraction of a query's targets whose answer stands in the top k; see `answer_mrecall_at_k`."""
    return recall_from_ranks(answer_ranks(texts, answers, k), k)


def answer_ranks(texts: Sequence[Sequence[str]], answers: Answers, depth: int) -> np.ndarray:
    """The rank, from 0, of the first text that contains each target's answer, as `recall.target_ranks`: `(q, m)`."""
    if len(texts) != len(answers) or not len(texts):
        raise ValueError(f"{len(texts)} lists of texts for {len(answers)} queries: give one each, at least one")
    check_depth(depth, max(map(len, texts)))
    ranks = np.full((len(answers), max(map(len, answers))), NO_TARGET, dtype=np.int64)
    for query, targets in enumerate(answers):
        if not len(targets):
            raise ValueError(f"query number {query} has no answers: leave it out, or measure by document")
        bounded = [f" {normalise_answer(text)} " for text in texts[query][:depth]]
        for target, aliases in enumerate(targets):
            wanted = _normalised_aliases(query, aliases)
            found = (rank for rank, text in enumerate(bounded) if any(alias in text for alias in wanted))
            ranks[query, target] = next(found, NOT_FOUND)
    return ranks


def normalise_answer(text: str) -> str:
    """The normalisation of SQuAD: lower case, no punctuation, no English articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def _normalised_aliases(query: int, aliases: Sequence[str]) -> list[str]:
    """Aliases with a space on either side, so that they only match whole tokens."""
    if isinstance(aliases, str) or not len(aliases):
        raise ValueError(f"query number {query} has the aliases {aliases!r}: give a list of strings, at least one")
    normalised = [normalise_answer(alias) for alias in aliases]
    if not all(normalised):
        alias = aliases[normalised.index("")]
        raise ValueError(
            f"query number {query} has the alias {alias!r}, of which normalisation leaves nothing: drop it"
        )
    return [f" {alias} " for alias in normalised]
