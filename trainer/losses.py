"""The two training objectives and the losses for spans, parts and stop scores, as pure functions of tensors.

Both objectives score every query vector against the same distinct documents, `candidates (n, dim)`: the targets of the
whole batch and the random negatives. A row ignores documents that answer it but are not its targets. The memory of
the objectives does not grow with the number of candidates.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from amer.trainer.matching import match

BLOCK = 8192  # number of candidates scored at a time
NO_LABEL = -100
TINY = 1e-12  # lower bound of the attention before the logarithm


class _LogSumExp(torch.autograd.Function):
    """`log sum_d exp(q . d)` over the candidates, computed block by block together with its gradient.

    The gradient of a log-sum-exp is the mean of the candidates under its softmax. As in blockwise attention, the
    forward pass updates that mean along with the sum. Neither pass ever holds all scores.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: torch.Tensor, candidates: torch.Tensor, masked_candidates: torch.Tensor | None
    ) -> torch.Tensor:
        """`(batch, m, dim)` float32, `(n, dim)`, `(pairs, 2)` -> `(batch, m)`."""
        peak = queries.new_full(queries.shape[:2], torch.finfo(queries.dtype).min)
        total = torch.zeros_like(peak)
        mean = torch.zeros_like(queries) if ctx.needs_input_grad[0] else None
        for start in range(0, len(candidates), BLOCK):
            block = candidates[start : start + BLOCK].to(queries.dtype)
            weights = queries @ block.T
            if masked_candidates is not None:
                row, place = masked_candidates.T
                inside = (place >= start) & (place < start + len(block))
                weights[row[inside], :, place[inside] - start] = -torch.inf
            new_peak = torch.maximum(peak, weights.amax(dim=2))
            weights.sub_(new_peak[:, :, None]).exp_()
            fade = torch.exp(peak - new_peak)
            peak, total = new_peak, total * fade + weights.sum(dim=2)
            if mean is not None:
                mean = mean * fade[:, :, None] + weights @ block
            del weights  # before the next block makes its own
        if mean is not None:
            ctx.save_for_backward(mean / total[:, :, None])
        return peak + total.log()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mean,) = ctx.saved_tensors
        return gradient[:, :, None] * mean, None, None


def target_log_probabilities(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    temperature: float,
    masked_candidates: torch.Tensor | None = None,
) -> torch.Tensor:
    """log p(target j | query vector i): the softmax of paper Eq. 1 over the candidates, always in float32.

    Args:
        query_embeddings: `(batch, m, dim)` unit vectors.
        candidates: `(n, dim)` unit vectors of documents, in any precision; they get no gradient.
        target_index: `(batch, t)` int64, the row's targets as rows of `candidates`.
        temperature: tau of Eq. 1.
        masked_candidates: `(pairs, 2)` int64, (row of the batch, candidate) to leave out of that row's denominator.

    Returns:
        `(batch, m, t)` log-probabilities.
    """
    with torch.autocast(query_embeddings.device.type, enabled=False):
        scaled = query_embeddings.float() / temperature
        target_logits = scaled @ candidates[target_index].float().transpose(1, 2)
        return target_logits - _LogSumExp.apply(scaled, candidates, masked_candidates)[:, :, None]


def matched_info_nce(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    target_mask: torch.Tensor,
    temperature: float = 0.05,
    masked_candidates: torch.Tensor | None = None,
    num_items: torch.Tensor | int | None = None,
    ordered: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE of the query vectors optimally matched to the unordered targets (paper §4.1, Eq. 1 and 2).

    Args:
        query_embeddings: `(batch, m, dim)` unit vectors; row b uses its first `target_mask[b].sum()`.
        candidates: `(n, dim)` unit vectors.
        target_index: `(batch, m)` int64, the row's targets as rows of `candidates`.
        target_mask: `(batch, m)` bool, True for real targets, which come first.
        temperature: tau of Eq. 1.
        masked_candidates: `(pairs, 2)` int64, (row of the batch, candidate) to leave out of that row's denominator.
        num_items: Number of matched pairs to average over. Default: those of this batch. If the batch is part of a
            larger one (several processes, gradient accumulation), pass the number of the larger one.
        ordered: `(batch,)` bool, True for rows in which vector j belongs to target j. Default: no row.

    Returns:
        The sum over the matched pairs of this batch, divided by `num_items`; a scalar.
    """
    log_probabilities = target_log_probabilities(
        query_embeddings, candidates, target_index, temperature, masked_candidates
    )
    assignment = match(-log_probabilities, target_mask)
    if ordered is not None:
        own = torch.arange(assignment.shape[1], device=assignment.device)
        assignment = torch.where(ordered[:, None], own, assignment)
    matched = log_probabilities.gather(2, assignment[:, :, None]).squeeze(2)  # (batch, m)
    return _mean(-matched, target_mask, num_items)


def mixture_info_nce(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    target_mask: torch.Tensor,
    temperature: float = 0.05,
    masked_candidates: torch.Tensor | None = None,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """`-log((1/m) sum_i p(target | q_i))`: the m query vectors form a uniform mixture, without matching or order.

    The arguments are those of `matched_info_nce`, but `target_index` and `target_mask` are `(batch, t)` for any t,
    because every query vector contributes to every target. With one vector (m = 1) this is InfoNCE over all targets.

    Returns:
        The sum over the targets of this batch, divided by `num_items`; a scalar.
    """
    log_probabilities = target_log_probabilities(
        query_embeddings, candidates, target_index, temperature, masked_candidates
    )
    mixture = log_probabilities.logsumexp(dim=1) - math.log(query_embeddings.shape[1])
    return _mean(-mixture, target_mask, num_items)


def span_loss(
    attention: torch.Tensor, part_mask: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """-log of the attention that query vector j gives to the tokens of part j.

    Args:
        attention: `(batch, m, length)` weights over the tokens of the question.
        part_mask: `(batch, t, length)` bool, t <= m, the tokens of each part. Parts without tokens are skipped.
        num_items: See `matched_info_nce`.

    Returns:
        The sum over the parts of this batch, divided by `num_items`; a scalar.
    """
    within = (attention[:, : part_mask.shape[1]].float() * part_mask).sum(dim=2)
    return _mean(-within.clamp(min=TINY).log(), part_mask.any(dim=2), num_items)


def stop_loss(
    stop_logits: torch.Tensor, target_mask: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Binary cross-entropy of "this vector is the last", at each of a question's targets.

    Positions after the last target are not trained, because a correct model never reaches them.

    Args:
        stop_logits: `(batch, m)` log-odds.
        target_mask: `(batch, t)` bool, t <= m; True for real targets, which come first.
        num_items: See `matched_info_nce`.

    Returns:
        The sum over the targets of this batch, divided by `num_items`; a scalar.
    """
    last = target_mask.clone()
    last[:, :-1] &= ~target_mask[:, 1:]
    logits = stop_logits[:, : target_mask.shape[1]].float()
    losses = binary_cross_entropy_with_logits(logits, last.float(), reduction="none")
    return _mean(losses, target_mask, num_items)


def part_loss(
    part_logits: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy of the labels that mark where the parts of a question begin and end.

    Args:
        part_logits: `(batch, length, 3)` logits of a model that splits questions.
        labels: `(batch, length)` int64 (see `modeling_amer.part_labels`), `NO_LABEL` on padding.
        counts: `(batch,)` number of parts of each question: the weight of its mean over the tokens.
        num_items: See `matched_info_nce`.

    Returns:
        The sum over the parts of this batch, divided by `num_items`; a scalar.
    """
    losses = cross_entropy(part_logits.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none")
    means = losses.sum(dim=1) / (labels != NO_LABEL).sum(dim=1)
    return (means * counts).sum() / (counts.sum() if num_items is None else num_items)


def _mean(losses: torch.Tensor, mask: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
    return losses[mask].sum() / (mask.sum() if num_items is None else num_items)
