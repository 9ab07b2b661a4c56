"""Choose the number of query vectors of a question: those up to the one that the stop score marks as the last."""

from __future__ import annotations

from typing import NamedTuple

import torch


class QueryEmbeddings(NamedTuple):
    """Query vectors of questions with different numbers of vectors.

    Attributes:
        query_embeddings: `(n, m, dim)` float32; unit vectors where the mask is True, zeros elsewhere.
        mask: `(n, m)` bool, True for existing vectors. Every question has at least one.
    """

    query_embeddings: torch.Tensor
    mask: torch.Tensor


def emitted(stop_logits: torch.Tensor) -> torch.Tensor:
    """Vectors up to the stop: `(batch, m)` log-odds that a vector is the last -> `(batch, m)` bool."""
    stopped = (stop_logits > 0).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(stopped[:, :1]), stopped[:, :-1]], dim=1)
    return before == 0


def blank(query_embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`(batch, m, dim)` query vectors, with zeros where the mask `(batch, m)` is False."""
    return torch.where(mask[:, :, None], query_embeddings, 0)
