"""Parts of a question encoded one by one: split by a rule that anybody would write, or where the dataset says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

SEPARATORS = re.compile(r"[;,?]|\band\b", re.IGNORECASE)


def split_by_rule(question: str) -> list[str]:
    """The pieces between semicolons, commas, question marks and the word "and".

    Pieces without a letter or digit are left out. A question of which no piece is left stays whole.
    """
    pieces = (piece.strip() for piece in SEPARATORS.split(question))
    return [piece for piece in pieces if re.search(r"\w", piece)] or [question]


def split_by_spans(question: str, spans: Sequence[Sequence[int]]) -> list[str]:
    """The parts that the dataset's `spans`, [start, end) in characters, mark.

    It is what a splitter without fault would give. A question without spans stays whole.
    """
    return [question[start:end] for start, end in spans] or [question]


def encode_parts(parts: Sequence[Sequence[str]], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """One query vector for each part of each question.

    Args:
        parts: of each question its parts, at least one.
        encode: the document encoder's, texts to `(n, dim)`.

    Returns:
        `(q, m, dim)` float32, m the greatest number of parts; zeros stand for no vector, as `search_lists` takes them.

    Raises:
        ValueError: no question, or a question without parts.
    """
    counts = np.array([len(own) for own in parts])
    if not counts.all() or not len(counts):
        raise ValueError("every question needs at least one part, and there must be a question")
    vectors = np.asarray(encode(list(chain.from_iterable(parts))), dtype=np.float32)
    query_embeddings = np.zeros((len(counts), counts.max(), vectors.shape[1]), dtype=np.float32)
    query_embeddings[np.arange(counts.max()) < counts[:, None]] = vectors
    return query_embeddings
