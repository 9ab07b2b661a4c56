"""The two training objectives, as pure functions of tensors: no model and no process group inside.

Both score every query vector against the same candidates, `candidates (n, dim)`, each document once: the targets
of the whole batch and the random negatives. What is a positive for a row without being its target is ignored there.
"""

from __future__ import annotations

import math

import torch

from trainer.matching import match


def target_log_probabilities(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    temperature: float,
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """log p(target j | query vector i), the softmax of paper Eq. 1 over the candidates.

    Args:
        query_embeddings: `(batch, m, dim)` unit vectors.
        candidates: `(n, dim)` unit vectors.
        target_index: `(batch, t)` int64, the row's targets as rows of `candidates`.
        temperature: tau of Eq. 1.
        ignored: `(pairs, 2)` int64, (row of the batch, candidate) left out of that row's denominator.

    Returns:
        `(batch, m, t)` log-probabilities.
    """
    scaled = query_embeddings / temperature
    logits = scaled @ candidates.T  # (batch, m, n)
    if ignored is not None:
        logits[ignored[:, 0], :, ignored[:, 1]] = float("-inf")
    target_logits = scaled @ candidates[target_index].transpose(1, 2)  # again, so as not to scatter gradients into n
    return target_logits - logits.logsumexp(dim=2, keepdim=True)


def matched_info_nce(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    target_mask: torch.Tensor,
    temperature: float = 0.05,
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE of the query vectors optimally matched to the unordered targets (paper §4.1, Eq. 1 and 2).

    Args:
        query_embeddings: `(batch, m, dim)` unit vectors; row b uses its first `target_mask[b].sum()`.
        candidates: `(n, dim)` unit vectors.
        target_index: `(batch, m)` int64, the row's targets as rows of `candidates`.
        target_mask: `(batch, m)` bool, True for real targets, which come first.
        temperature: tau of Eq. 1.
        ignored: `(pairs, 2)` int64, (row of the batch, candidate) left out of that row's denominator.

    Returns:
        The mean over all matched pairs of the batch, a scalar.
    """
    log_probabilities = target_log_probabilities(query_embeddings, candidates, target_index, temperature, ignored)
    assignment = match(-log_probabilities, target_mask)
    matched = log_probabilities.gather(2, assignment[:, :, None]).squeeze(2)  # (batch, m)
    return -matched[target_mask].mean()


def mixture_info_nce(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    target_mask: torch.Tensor,
    temperature: float = 0.05,
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """`-log((1/m) sum_i p(target | q_i))`: the m query vectors as an even mixture, with no matching and no order.

    Arguments as in `matched_info_nce`, but `target_index` and `target_mask` are `(batch, t)` for any t: every query
    vector takes part in explaining every target. One vector (m = 1) is InfoNCE over all targets.

    Returns:
        The mean over all targets of the batch, a scalar.
    """
    log_probabilities = target_log_probabilities(query_embeddings, candidates, target_index, temperature, ignored)
    mixture = log_probabilities.logsumexp(dim=1) - math.log(query_embeddings.shape[1])
    return -mixture[target_mask].mean()
