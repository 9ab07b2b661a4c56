"""How many query vectors a question gets: those before the stop score says that there is no further target."""

from __future__ import annotations

from typing import NamedTuple

import torch


class QueryEmbeddings(NamedTuple):
    """Query vectors of questions that have different numbers of them.

    Attributes:
        query_embeddings: `(n, m, dim)` float32; unit vectors where the mask is True, zeros elsewhere.
        mask: `(n, m)` bool; the first vector of a question is always there.
    """

    query_embeddings: torch.Tensor
    mask: torch.Tensor


def emitted(stop_logits: torch.Tensor) -> torch.Tensor:
    """Which vectors come before the stop: `(batch, m)` log-odds that a vector is the last -> `(batch, m)` bool."""
    stopped = (stop_logits > 0).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(stopped[:, :1]), stopped[:, :-1]], dim=1)
    return before == 0


def blank(query_embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`(batch, m, dim)` with zeros where the mask `(batch, m)` is False: no vector, nothing to search with."""
    return torch.where(mask[:, :, None], query_embeddings, 0)
