"""The tensor losses equal loops written from the equations, in value and in gradient."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch.nn.functional import normalize

from amer.trainer import losses
from amer.trainer.losses import matched_info_nce, mixture_info_nce
from amer.trainer.matching import match, match_on_device

TEMPERATURE = 0.07


def problem(seed: int = 0, batch: int = 5, m: int = 4, n: int = 23, dim: int = 6, ties: bool = False):
    generator = torch.Generator().manual_seed(seed)
    queries = normalize(torch.randn(batch, m, dim, generator=generator), dim=-1)
    candidates = normalize(torch.randn(n, dim, generator=generator), dim=-1)
    index = torch.stack([torch.randperm(n, generator=generator)[:m] for _ in range(batch)])
    sizes = torch.randint(1, m + 1, (batch,), generator=generator)
    mask = torch.arange(m) < sizes[:, None]
    masked_candidates = torch.rand(batch, n, generator=generator) < 0.2
    masked_candidates.scatter_(1, index, False)
    if ties:
        queries[:, 1:] = queries[:, :1]
    return queries.requires_grad_(), candidates, index, mask, masked_candidates.nonzero()


def info_nce(query, target, candidates, row, masked_candidates):
    """Paper Eq. 1, one query vector of a row and its positive."""
    left_out = {candidate for i, candidate in masked_candidates.tolist() if i == row}
    kept = [document for candidate, document in enumerate(candidates) if candidate not in left_out]
    scores = [torch.exp(query @ document / TEMPERATURE) for document in kept]
    return -torch.log(torch.exp(query @ candidates[target] / TEMPERATURE) / sum(scores))


def matched_loop(queries, candidates, index, mask, masked_candidates):
    """Paper Eq. 2, over all matchings of each row."""
    losses = []
    for b in range(len(queries)):
        targets = index[b][mask[b]].tolist()
        costs = [
            [info_nce(queries[b, i], t, candidates, b, masked_candidates) for t in targets]
            for i in range(len(targets))
        ]
        matchings = permutations(range(len(targets)))
        best = min(matchings, key=lambda p: sum(costs[i][j].item() for i, j in enumerate(p)))
        losses += [costs[i][j] for i, j in enumerate(best)]
    return torch.stack(losses).mean()


def mixture_loop(queries, candidates, index, mask, masked_candidates):
    losses = []
    for b in range(len(queries)):
        for t in index[b][mask[b]].tolist():
            chances = [torch.exp(-info_nce(q, t, candidates, b, masked_candidates)) for q in queries[b]]
            losses.append(-torch.log(sum(chances) / len(chances)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("fast", "slow"), [(matched_info_nce, matched_loop), (mixture_info_nce, mixture_loop)])
def test_loss_and_gradient_equal_the_loop(fast, slow, seed):
    queries, candidates, index, mask, masked_candidates = problem(seed)
    loss = fast(queries, candidates, index, mask, TEMPERATURE, masked_candidates)
    (gradient,) = torch.autograd.grad(loss, queries)
    expected = slow(queries, candidates, index, mask, masked_candidates)
    (expected_gradient,) = torch.autograd.grad(expected, queries)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-4)


def test_a_mixture_of_one_vector_is_info_nce_over_all_targets():
    queries, candidates, index, mask, masked_candidates = problem(1)
    one = queries[:, :1]
    losses = [
        info_nce(one[b, 0], t, candidates, b, masked_candidates)
        for b in range(len(one))
        for t in index[b][mask[b]].tolist()
    ]
    loss = mixture_info_nce(one, candidates, index, mask, TEMPERATURE, masked_candidates)
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_the_order_of_the_targets_does_not_matter():
    queries, candidates, index, mask, masked_candidates = problem(2)
    mask[:] = True
    loss = matched_info_nce(queries, candidates, index, mask, TEMPERATURE, masked_candidates)
    again = matched_info_nce(queries, candidates, index.flip(1), mask, TEMPERATURE, masked_candidates)
    torch.testing.assert_close(loss, again)


def test_ignored_candidates_leave_the_denominator():
    queries, candidates, index, mask, masked_candidates = problem(3)
    with_all = matched_info_nce(queries, candidates, index, mask, TEMPERATURE)
    assert matched_info_nce(queries, candidates, index, mask, TEMPERATURE, masked_candidates) < with_all


def plain(queries, candidates, index, mask, masked_candidates):
    """All logits held at once."""
    logits = queries @ candidates.T / TEMPERATURE
    logits[masked_candidates[:, 0], :, masked_candidates[:, 1]] = -torch.inf
    log_probabilities = logits.log_softmax(dim=2).gather(2, index[:, None].expand(-1, queries.shape[1], -1))
    chosen = match(-log_probabilities, mask)
    return -log_probabilities.gather(2, chosen[:, :, None]).squeeze(2)[mask].mean()


@pytest.mark.parametrize("block", [1, 7, 23, 1000])
def test_blocks_of_candidates_change_neither_loss_nor_gradient(block, monkeypatch):
    monkeypatch.setattr(losses, "BLOCK", block)
    queries, candidates, index, mask, masked_candidates = problem(5, n=101)
    loss = matched_info_nce(queries, candidates, index, mask, TEMPERATURE, masked_candidates)
    expected = plain(queries, candidates, index, mask, masked_candidates)
    torch.testing.assert_close(loss, expected)
    gradient, expected_gradient = (torch.autograd.grad(value, queries)[0] for value in (loss, expected))
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        again = matched_info_nce(queries, candidates, index, mask, TEMPERATURE, masked_candidates)
    torch.testing.assert_close(again, expected)


def test_the_loss_is_exact_under_autocast_and_with_half_precision_documents():
    queries, candidates, index, mask, masked_candidates = problem(6)
    documents = candidates.half()
    expected = matched_info_nce(queries, documents.float(), index, mask, TEMPERATURE, masked_candidates)
    with torch.autocast("cpu", torch.bfloat16):
        found = matched_info_nce(queries, documents, index, mask, TEMPERATURE, masked_candidates)
    assert torch.equal(found, expected)


def test_parts_of_a_batch_add_up_to_the_whole():
    queries, candidates, index, mask, _ = problem(7, batch=6)
    whole = matched_info_nce(queries, candidates, index, mask, TEMPERATURE)
    parts = [
        matched_info_nce(queries[rows], candidates, index[rows], mask[rows], TEMPERATURE, num_items=int(mask.sum()))
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)
    nothing = matched_info_nce(queries, candidates, index, torch.zeros_like(mask), TEMPERATURE, num_items=5)
    assert nothing == 0 and torch.autograd.grad(nothing, queries)[0].abs().sum() == 0


@pytest.mark.parametrize("solve", [match, match_on_device])
@pytest.mark.parametrize("ties", [False, True])
def test_assignment_costs_no_more_than_any_other(ties, solve):
    generator = torch.Generator().manual_seed(7)
    costs = torch.randn(200, 5, 5, generator=generator)
    if ties:
        costs = costs.round()
    sizes = torch.randint(1, 6, (200,), generator=generator)
    mask = torch.arange(5) < sizes[:, None]
    assignment = solve(costs, mask)
    for cost, size, chosen in zip(costs.tolist(), sizes.tolist(), assignment.tolist(), strict=True):
        best = min(sum(cost[i][p[i]] for i in range(size)) for p in permutations(range(size)))
        assert sorted(chosen[:size]) == list(range(size))
        assert sum(cost[i][chosen[i]] for i in range(size)) == pytest.approx(best)
        assert chosen[size:] == list(range(size, 5))


@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_the_assignment_on_the_device_costs_what_scipy_s_costs(m):
    generator = torch.Generator().manual_seed(m)
    costs = torch.randn(2500, m, m, generator=generator) * 20
    costs[::2] = (costs[::2] / 10).round()  # half of them full of ties
    mask = torch.arange(m) < torch.randint(0, m + 1, (2500, 1), generator=generator)
    found, expected = match_on_device(costs, mask), match(costs, mask)
    assert torch.equal(found.sort(dim=1).values, torch.arange(m).expand(2500, -1))
    assert torch.equal(found[~mask], expected[~mask])  # no target: its own position
    paid = [costs.double().gather(2, chosen[:, :, None]).squeeze(2) * mask for chosen in (found, expected)]
    torch.testing.assert_close(paid[0].sum(1), paid[1].sum(1), rtol=0, atol=1e-9)


def test_costs_that_are_not_finite_are_avoided_and_harm_no_other_row():
    costs = torch.zeros(2, 2, 2)
    costs[1, 0, 0] = torch.nan
    masked = torch.tensor([[True, True], [True, False]])
    assert match(costs, torch.ones(2, 2, dtype=torch.bool)).tolist() == [[0, 1], [1, 0]]
    assert match(costs, masked).tolist() == [[0, 1], [0, 1]]
