"""Recall@k and MRecall@k by answer string: a text covers a target if it contains one of the target's aliases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amer.data.answer_matching import AnswerMatcher, normalise_answer
from amer.evaluation.recall import NO_TARGET, NOT_FOUND, check_depth, mrecall_from_ranks, recall_from_ranks

__all__ = ["answer_mrecall_at_k", "answer_ranks", "answer_recall_at_k", "normalise_answer"]

Answers = Sequence[Sequence[Sequence[str]]]
"""The targets of each query, each a list of aliases."""


def answer_mrecall_at_k(texts: Sequence[Sequence[str]], answers: Answers, k: int) -> np.ndarray:
    """MRecall@k as in `amer.evaluation.recall.mrecall_at_k`, with answer strings instead of documents.

    Args:
        texts: The retrieved texts of each query, best first; a list may be shorter if the corpus had no more.
        answers: The targets of each query, each a list of aliases.
        k: Cut-off, at most the length of the longest list.

    Returns:
        `(q,)` float64 of 0 and 1.

    Raises:
        ValueError: k is out of range, the lengths differ, a query has no targets, a target has no aliases, or an alias
            normalises to nothing.
    """
    return mrecall_from_ranks(answer_ranks(texts, answers, k), k)


def answer_recall_at_k(texts: Sequence[Sequence[str]], answers: Answers, k: int) -> np.ndarray:
    """The fraction of a query's targets with an answer in the top k texts; see `answer_mrecall_at_k`."""
    return recall_from_ranks(answer_ranks(texts, answers, k), k)


def answer_ranks(texts: Sequence[Sequence[str]], answers: Answers, depth: int) -> np.ndarray:
    """The rank, from 0, of the first text that contains each target's answer; `(q, m)` as in `recall.target_ranks`."""
    if len(texts) != len(answers) or not len(texts):
        raise ValueError(f"{len(texts)} lists of texts for {len(answers)} queries: give one per query, at least one")
    check_depth(depth, max(map(len, texts)))
    ranks = np.full((len(answers), max(map(len, answers))), NO_TARGET, dtype=np.int64)
    for query, targets in enumerate(answers):
        try:
            matcher = AnswerMatcher(targets)
        except ValueError as error:
            raise ValueError(f"query number {query}: {error}") from error
        found = matcher.covers(texts[query][:depth])
        positions = np.where(found, np.arange(len(found))[:, None], NOT_FOUND)
        ranks[query, : len(targets)] = positions.min(axis=0, initial=NOT_FOUND)
    return ranks
