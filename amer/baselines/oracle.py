"""An upper bound for m query vectors: cluster centres of the gold documents' embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2

from amer.baselines.averaging import normalised_means
from amer.corpus.store import DocumentStore


def oracle_query_embeddings(
    targets: Sequence[Sequence[Sequence[int]]], store: DocumentStore, m: int, seed: int
) -> np.ndarray:
    """Compute query vectors from the answers: k-means with m clusters over the embeddings of a question's targets.

    The first document of its cluster represents each target, as in `amer.evaluation.diversity`. If a question has at
    most m distinct embeddings, these are its query vectors, repeated until there are m.

    Args:
        targets: The targets of each question, each a list of store rows.
        store: The store of the document embeddings.
        m: Number of vectors per question.
        seed: Seed of the first centres.

    Returns:
        `(q, m, dim)` float32 of unit length.

    Raises:
        ValueError: m < 1, there is no question, a question has no targets, a target has no documents, or a centre is
            zero because its targets cancel out.
    """
    if m < 1 or not len(targets):
        raise ValueError(f"m must be at least 1, with at least one question, got m={m}, {len(targets)} questions")
    for question, clusters in enumerate(targets):
        if not len(clusters) or not all(map(len, clusters)):
            raise ValueError(
                f"question number {question} has the targets {clusters!r}: give each at least one document"
            )
    rng = np.random.default_rng(seed)
    firsts = (store.vectors([cluster[0] for cluster in clusters]) for clusters in targets)
    return normalised_means(np.stack([_centres(vectors, m, rng) for vectors in firsts]))


def _centres(vectors: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    """The centres of `(targets, dim)`: `(m, dim)` float64, not normalised."""
    distinct = vectors[np.sort(np.unique(vectors, axis=0, return_index=True)[1])].astype(np.float64)
    if len(distinct) <= m:
        return distinct[np.arange(m) % len(distinct)]
    return kmeans2(distinct, m, minit="++", seed=rng)[0]
