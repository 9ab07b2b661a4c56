"""The candidates of a step: the distinct documents of all processes, and the positions of the targets in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch

Gather = Callable[[torch.Tensor], torch.Tensor]


class Candidates(TypedDict):
    """A step's documents, as arguments of the losses; see `gather_candidates`."""

    candidates: torch.Tensor
    target_index: torch.Tensor
    target_mask: torch.Tensor
    masked_candidates: torch.Tensor


def gather_candidates(
    candidates: torch.Tensor,
    candidate_ids: torch.Tensor,
    target_ids: torch.Tensor,
    other_positives: torch.Tensor,
    gather: Gather = lambda tensor: tensor,
) -> Candidates:
    """Gather the documents of all processes in this step into the arguments of the losses.

    Rows of the store identify documents. A document from several processes therefore counts once, and a document that
    answers a question is never its negative, whichever process drew it. The vectors are frozen, so no gradient
    crosses processes, and each process scores its own questions only.

    Args:
        candidates: `(n, dim)` vectors of this process.
        candidate_ids: `(n,)` int64 rows of the store.
        target_ids: `(batch, t)` int64 rows of the store, -1 after a question's last one. All are candidates.
        other_positives: `(pairs, 2)` int64: row of the batch, and a document that answers it but is not its target.
        gather: Function that concatenates the rows of all processes. It may pad; padded rows are -1 in
            `candidate_ids`.

    Returns:
        `candidates (all, dim)`, `target_index (batch, t)`, `target_mask (batch, t)`, `masked_candidates (pairs, 2)`.
    """
    ids, order = gather(candidate_ids).sort(stable=True)
    first = ids >= 0
    first[1:] &= ids[1:] != ids[:-1]
    ids = ids[first]
    row, known = other_positives.T.contiguous()
    place = torch.searchsorted(ids, known).clamp(max=len(ids) - 1)
    return {
        "candidates": gather(candidates)[order[first]],
        "target_index": torch.searchsorted(ids, target_ids.clamp(min=0)),
        "target_mask": target_ids >= 0,
        "masked_candidates": torch.stack([row, place], dim=1)[ids[place] == known],
    }
