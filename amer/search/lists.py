"""One ranked list for each query vector that a question has."""

from __future__ import annotations

import numpy as np
import torch

from amer.search.index import Index


def search_lists(
    index: Index, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Search with every query vector but those of zeros, which stand for no vector and cost no search.

    Args:
        index: where to search.
        query_embeddings: `(q, m, dim)`; where the model chose m, the places of vectors it did not emit hold zeros.
        k: length of a list.
        filter: only documents whose metadata fulfil it.

    Returns:
        rows and scores `(q, m, n)`; -1 and -inf in the lists of zeros.

    Raises:
        ValueError: what the index refuses.
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
