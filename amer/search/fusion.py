"""Fuse the m result lists of a question into one ranked list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch

from amer.corpus.store import DocumentStore

NOWHERE = np.iinfo(np.int64).max  # sorts after every real position
RANK_OFFSET = 60  # constant of reciprocal-rank fusion (Cormack et al., 2009)
GATHER_VALUES = 2**24  # document values that `mixture` holds at a time: 64 MiB of float32


class Fused(NamedTuple):
    """One ranked list per question, padded with row -1, score -inf, found_by -1 and found_at -1.

    Attributes:
        rows: `(q, k)` int64 rows of the store, best first, without repeats.
        scores: `(q, k)` float32.
        found_by: `(q, k)` int64, the query vector that found the document first, counted from 0.
        found_at: `(q, k)` int64, the document's rank in that query vector's list, counted from 0.
    """

    rows: np.ndarray
    scores: np.ndarray
    found_by: np.ndarray
    found_at: np.ndarray


Fusion = Callable[[np.ndarray, np.ndarray, int, np.ndarray, DocumentStore], Fused]
"""`(rows, scores, k, query_embeddings, store) -> Fused`: one of `FUSIONS`, or `partial(mixture, temperature=...)`."""

FusionName = Literal["round_robin", "reciprocal_rank", "max_score"]
"""The keys of `FUSIONS`."""


def trained_fusion(objective: str, temperature: float) -> Fusion:
    """Return the fusion for a training objective: `round_robin` for "matched", `mixture` for "mixture"."""
    return partial(mixture, temperature=temperature) if objective == "mixture" else round_robin


def round_robin(
    rows: np.ndarray,
    scores: np.ndarray,
    k: int,
    query_embeddings: np.ndarray | None = None,
    store: DocumentStore | None = None,
) -> Fused:
    """Take rank 1 of each list in turn, then rank 2, and so on, skipping repeated documents (paper §4.2).

    Args:
        rows: `(q, m, n)` integer rows, best first; -1 is padding.
        scores: `(q, m, n)`. A document keeps the score with which it was found first.
        k: Length of the fused lists.
        query_embeddings: Not used. All fusions take the same arguments.
        store: Not used.

    Raises:
        ValueError: A shape or type is wrong, a row is below -1, or k < 1.
    """
    rows, scores = _checked(rows, scores, k)
    _, m, n = rows.shape
    shift = (m * n - 1).bit_length()
    if rows.size and int(rows.max()) >= 1 << (63 - shift):
        raise ValueError(f"row {rows.max()} is too large to fuse {m} lists of {n}")
    # Usually the first 2k entries hold k distinct documents. Questions where they do not are done with whole lists.
    ranks = min(n, -(-2 * k // m))
    positions = _first_positions(rows[:, :, :ranks], k, shift)
    if ranks < n:
        short = np.flatnonzero(positions[:, -1] == NOWHERE)
        if len(short):
            positions[short] = _first_positions(rows[short], k, shift)
    return _gather(rows, scores, positions)


def mixture(
    rows: np.ndarray,
    scores: np.ndarray,
    k: int,
    query_embeddings: np.ndarray | torch.Tensor,
    store: DocumentStore,
    temperature: float,
) -> Fused:
    """Rank the union of the m lists by `logsumexp_i(q_i . d / temperature)`, the score of the mixture objective.

    The inner products are computed exactly from the store's vectors, for every query vector and every document of the
    union. A single query vector keeps the order of its list.

    Args:
        rows: `(q, m, n)` integer rows, best first; -1 is padding.
        scores: `(q, m, n)` inner products.
        k: Length of the fused lists.
        query_embeddings: `(q, m, dim)`.
        store: Store that the rows refer to.
        temperature: Softmax temperature of the model's training; positive.

    Raises:
        ValueError: As `round_robin`, or the temperature is not positive, or `query_embeddings` has a wrong shape.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    rows, scores = _checked(rows, scores, k)
    questions, m, n = rows.shape
    queries = torch.as_tensor(query_embeddings, dtype=torch.float32, device="cpu").detach()
    if queries.shape != (questions, m, store.dim):
        raise ValueError(f"query_embeddings must be {(questions, m, store.dim)}, got {tuple(queries.shape)}")
    if m == 1:
        fused = round_robin(rows, scores, k)
        return fused._replace(scores=fused.scores / np.float32(temperature))
    union = round_robin(rows, scores, max(k, m * n))
    step = max(1, GATHER_VALUES // (union.rows.shape[1] * store.dim))
    for start in range(0, questions, step):
        part = slice(start, start + step)
        documents = torch.from_numpy(store.vectors(np.maximum(union.rows[part], 0)))
        mixed = torch.logsumexp(queries[part] @ documents.transpose(1, 2) / temperature, dim=1)
        union.scores[part] = np.where(union.rows[part] < 0, -np.inf, mixed.numpy())
    order = np.argsort(-union.scores, axis=1, kind="stable")[:, :k]  # ties keep the round-robin order
    return Fused(*(np.take_along_axis(field, order, axis=1) for field in union))


def reciprocal_rank(
    rows: np.ndarray,
    scores: np.ndarray,
    k: int,
    query_embeddings: np.ndarray | None = None,
    store: DocumentStore | None = None,
) -> Fused:
    """Rank by the sum of `1 / (60 + rank)`, rank from 1, over the lists with the document: for LLM rewrites.

    Documents with equal sums keep the round-robin order. `found_by` and `found_at` give the document's best rank; the
    earlier list wins a tie.

    Args:
        rows: `(q, m, n)` integer rows, best first; -1 is padding. A row repeated in a list counts at its best rank.
        scores: `(q, m, n)`. Not used, apart from a check of the shape.
        k: Length of the fused lists.
        query_embeddings: Not used. All fusions take the same arguments.
        store: Not used.

    Raises:
        ValueError: As `round_robin`.
    """
    rows, scores = _checked(rows, scores, k)
    positions, sums = _best_positions(rows)
    order = np.lexsort((positions, -sums))[:, :k]
    missing = ((0, 0), (0, k - order.shape[1]))
    positions = np.pad(np.take_along_axis(positions, order, axis=1), missing, constant_values=NOWHERE)
    sums = np.pad(np.take_along_axis(sums, order, axis=1), missing, constant_values=-np.inf)
    return _gather(rows, scores, positions)._replace(scores=sums)


def max_score(
    rows: np.ndarray,
    scores: np.ndarray,
    k: int,
    query_embeddings: np.ndarray | None = None,
    store: DocumentStore | None = None,
) -> Fused:
    """Rank by the greatest inner product with any query vector. Ties keep the round-robin order.

    `found_by` and `found_at` name the query vector with that product. Lists of length k suffice for the exact top k.

    Args:
        rows: `(q, m, n)` integer rows, best first; -1 is padding.
        scores: `(q, m, n)` inner products.
        k: Length of the fused lists.
        query_embeddings: Not used. All fusions take the same arguments.
        store: Not used.

    Raises:
        ValueError: As `round_robin`.
    """
    rows, scores = _checked(rows, scores, k)
    questions, m, n = rows.shape
    flat_rows, flat_scores = (lists.transpose(0, 2, 1).reshape(questions, 1, m * n) for lists in (rows, scores))
    order = np.argsort(np.where(flat_rows < 0, np.inf, -flat_scores), axis=2, kind="stable")
    ranked_rows, ranked_scores = (np.take_along_axis(lists, order, axis=2) for lists in (flat_rows, flat_scores))
    fused = round_robin(ranked_rows, ranked_scores, k)
    found_at, found_by = np.divmod(np.take_along_axis(order[:, 0], np.maximum(fused.found_at, 0), axis=1), m)
    nowhere = fused.rows < 0
    return fused._replace(found_by=np.where(nowhere, -1, found_by), found_at=np.where(nowhere, -1, found_at))


FUSIONS: dict[str, Fusion] = {
    "round_robin": round_robin,
    "reciprocal_rank": reciprocal_rank,
    "max_score": max_score,
}


def _checked(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = np.asarray(rows), np.asarray(scores, dtype=np.float32)
    if rows.ndim != 3 or not rows.shape[1] or not rows.shape[2] or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"rows must be integers of shape (q, m, n), m, n > 0, got {rows.dtype} {rows.shape}")
    if scores.shape != rows.shape:
        raise ValueError(f"scores have shape {scores.shape}, rows {rows.shape}: the shapes must be equal")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if rows.size and rows.min() < -1:
        raise ValueError(f"rows must be -1 (padding) or more, got {rows.min()}")
    return rows.astype(np.int64, copy=False), scores


def _first_positions(rows: np.ndarray, k: int, shift: int) -> np.ndarray:
    """Return the positions at which the first k distinct documents of each question first appear.

    A position is `rank * m + list`, so ascending positions are the round-robin order. Row and position are packed into
    one integer: a single sort then groups equal rows, earliest position first. `rows` is `(q, m, ranks)`; `shift` is
    the number of bits for a position. Returns `(q, k)` int64, ascending, padded with NOWHERE.
    """
    questions, m, ranks = rows.shape
    keys = rows.transpose(0, 2, 1).reshape(questions, ranks * m) << shift
    keys |= np.arange(ranks * m)
    keys.sort(axis=1)
    found = keys >> shift
    first = found >= 0
    first[:, 1:] &= found[:, 1:] != found[:, :-1]
    positions = np.where(first, keys & ((1 << shift) - 1), NOWHERE)
    positions.sort(axis=1)
    return np.pad(positions[:, :k], ((0, 0), (0, max(0, k - ranks * m))), constant_values=NOWHERE)


def _best_positions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each document's best position and its sum of reciprocal ranks, for rows `(q, m, n)`.

    Positions (as in `_first_positions`) and sums are `(q, m * n)`, unordered, one entry per document. NOWHERE and -inf
    fill the other entries.
    """
    questions, m, n = rows.shape
    order = np.argsort(rows.reshape(questions, m * n), axis=1, kind="stable")
    found = np.take_along_axis(rows.reshape(questions, m * n), order, axis=1)
    lists, ranks = np.divmod(order, n)
    first = np.ones(found.shape, dtype=bool)  # equal rows are adjacent, in order of their lists
    first[:, 1:] = found[:, 1:] != found[:, :-1]
    counts = first.copy()
    counts[:, 1:] |= lists[:, 1:] != lists[:, :-1]
    starts = np.flatnonzero(first)
    positions = np.full(found.shape, NOWHERE)
    positions[first] = np.minimum.reduceat((ranks * m + lists).ravel(), starts)
    sums = np.full(found.shape, -np.inf, dtype=np.float32)  # float32 hides differences in summation order
    sums[first] = np.add.reduceat((counts / (RANK_OFFSET + 1 + ranks)).ravel(), starts)
    positions[found < 0], sums[found < 0] = NOWHERE, -np.inf
    return positions, sums


def _gather(rows: np.ndarray, scores: np.ndarray, positions: np.ndarray) -> Fused:
    """Gather rows and scores `(q, m, n)` at the round-robin positions `(q, k)`."""
    nowhere = positions == NOWHERE
    found_at, found_by = np.divmod(np.where(nowhere, 0, positions), rows.shape[1])
    question = np.arange(len(rows))[:, None]
    return Fused(
        rows=np.where(nowhere, -1, rows[question, found_by, found_at]),
        scores=np.where(nowhere, np.float32(-np.inf), scores[question, found_by, found_at]),
        found_by=np.where(nowhere, -1, found_by),
        found_at=np.where(nowhere, -1, found_at),
    )
