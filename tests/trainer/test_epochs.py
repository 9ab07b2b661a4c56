"""The order of an epoch follows from seed and epoch alone."""

from __future__ import annotations

import pytest

from amer.trainer.epochs import EpochDataset, EpochSampler


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert {found for found, _ in keys} == {epoch}
    return [index for _, index in keys]


LENGTHS = [(37 * i) % 101 for i in range(404)]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_every_epoch_holds_every_question_once_in_an_order_of_its_own(lengths):
    first = EpochSampler(404, 4, seed=1, lengths=lengths)
    orders = [order(first, epoch) for epoch in (0, 1, 2)]
    assert all(sorted(found) == list(range(404)) for found in orders) and len(first) == 404
    assert orders[0] != orders[1] != orders[2]
    assert order(EpochSampler(404, 4, seed=1, lengths=lengths), 2) == orders[2]  # without going through the others
    assert order(EpochSampler(404, 4, seed=2, lengths=lengths), 0) != orders[0]


def test_the_last_batch_is_filled_up_with_the_first_questions():
    found = order(EpochSampler(10, 4, seed=0), 0)
    assert len(found) == len(EpochSampler(10, 4, seed=0)) == 12
    assert sorted(found[:10]) == list(range(10)) and found[10:] == found[:2]
    assert order(EpochSampler(2, 5, seed=0), 0).count(0) in (2, 3)


def test_batches_hold_questions_of_about_equal_length_and_come_in_no_order():
    found = order(EpochSampler(404, 8, seed=0, lengths=LENGTHS), 0)
    batches = [[LENGTHS[i] for i in found[start : start + 8]] for start in range(0, 408, 8)]
    spread = sorted(max(batch) - min(batch) for batch in batches)
    assert len(batches) == 51 and spread[-2] <= 4  # one batch is the rest of the last stretch
    (first, second) = ([sum(batch) for batch in batches[place : place + 25]] for place in (0, 25))
    assert all(part not in (sorted(part), sorted(part, reverse=True)) for part in (first, second))
    many = LENGTHS * 10
    found = [many[i] for i in order(EpochSampler(4040, 4, seed=0, lengths=many), 0)]
    assert max(found[start + 3] - found[start] for start in range(0, 4040, 4)) > 1  # not sorted over the whole epoch


def test_items_carry_their_epoch():
    dataset = EpochDataset([{"index": 0}, {"index": 1}])
    assert dataset[3, 1] == {"index": 1, "epoch": 3} and len(dataset) == 2
