"""Search one ranked list per query vector of a question."""

from __future__ import annotations

import numpy as np
import torch

from amer.search.index import Index


def search_lists(
    index: Index, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Search with every query vector except all-zero ones, which mark vectors that the model did not emit.

    Args:
        index: The index to search.
        query_embeddings: `(q, m, dim)`.
        k: Length of a list.
        filter: Condition on the metadata.

    Returns:
        Rows and scores, each `(q, m, n)`. The lists of zero vectors hold -1 and -inf.

    Raises:
        ValueError: The index rejects the arguments.
    """
    given = torch.as_tensor(query_embeddings)
    active = (given != 0).any(dim=-1)
    if given.dim() != 3 or active.all():
        return index.search(query_embeddings, k, filter)
    found_rows, found_scores = index.search(given[active][:, None], k, filter)
    shape, places = (*given.shape[:2], found_rows.shape[2]), active.cpu().numpy()
    rows, scores = np.full(shape, -1, found_rows.dtype), np.full(shape, -np.inf, found_scores.dtype)
    rows[places], scores[places] = found_rows[:, 0], found_scores[:, 0]
    return rows, scores
