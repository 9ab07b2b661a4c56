"""Splits a question by a simple rule or by the dataset's spans, and encodes its parts one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

RULE, TOLD = "split by rule", "told the split"  # names of the two systems in reports; TOLD knows the true parts
SEPARATORS = re.compile(r"[;,?]|\band\b", re.IGNORECASE)


def split_by_rule(question: str) -> list[str]:
    """Split a question at semicolons, commas, question marks and the word "and".

    Pieces without a letter or digit are left out. If no piece is left, the question stays whole.
    """
    pieces = (piece.strip() for piece in SEPARATORS.split(question))
    return [piece for piece in pieces if re.search(r"\w", piece)] or [question]


def split_by_spans(question: str, spans: Sequence[Sequence[int]]) -> list[str]:
    """Split a question at the dataset's `spans`, [start, end) in characters, as a perfect splitter would.

    A question without spans stays whole.
    """
    return [question[start:end] for start, end in spans] or [question]


def encode_parts(parts: Sequence[Sequence[str]], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Encode one query vector for each part of each question.

    Args:
        parts: The parts of each question, at least one.
        encode: Function of the document encoder, from texts to `(n, dim)`.

    Returns:
        `(q, m, dim)` float32, where m is the largest number of parts. Zero vectors are padding; `search_lists` skips
        them.

    Raises:
        ValueError: There is no question, or a question has no parts.
    """
    counts = np.array([len(own) for own in parts])
    if not counts.all() or not len(counts):
        raise ValueError("give at least one question, and at least one part per question")
    vectors = np.asarray(encode(list(chain.from_iterable(parts))), dtype=np.float32)
    query_embeddings = np.zeros((len(counts), counts.max(), vectors.shape[1]), dtype=np.float32)
    query_embeddings[np.arange(counts.max()) < counts[:, None]] = vectors
    return query_embeddings
