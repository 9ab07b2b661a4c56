"""What a batch holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import build
from trainer import AMERCollator


def collate(model, world, rows, **options):
    return AMERCollator(model, world.store, **{"num_random_negatives": 0, **options})(
        [world.dataset[row] for row in rows]
    )


def candidate_rows(batch, world):
    """Store rows of the candidates, found again by their vectors."""
    return (batch["candidates"].numpy() @ world.vectors.T).argmax(axis=1).tolist()


@pytest.fixture(scope="module")
def model(llama):
    return build(llama)


def test_targets_of_unequal_number_are_padded_and_masked(model, world):
    batch = collate(model, world, [0, 1, 2])
    assert batch["target_mask"].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    rows = candidate_rows(batch, world)
    found = [
        {rows[i] for i in index[mask].tolist()}
        for index, mask in zip(batch["target_index"], batch["target_mask"], strict=True)
    ]
    assert found[0] == {0} and found[1] in ({2, 3}, {50, 3}) and found[2] == {4, 5, 6}
    assert batch["input_ids"].shape[0] == 3 and "query_vectors" not in batch


def test_targets_are_shuffled_and_clusters_sampled(model, world):
    seen = set()
    for seed in range(40):
        batch = collate(model, world, [1], seed=seed)
        rows = candidate_rows(batch, world)
        seen.add(tuple(rows[i] for i in batch["target_index"][0].tolist()))
    assert seen == {(2, 3), (3, 2), (50, 3), (3, 50)}


def test_a_document_enters_the_candidates_once_and_negatives_are_no_positives(model, world):
    rows_of_batch = [1, 2, 2, 3]
    batch = collate(model, world, rows_of_batch, num_random_negatives=60)
    rows = candidate_rows(batch, world)
    assert len(rows) == len(set(rows))
    positives = {row for i in rows_of_batch for cluster in world.dataset[i]["target_rows"] for row in cluster}
    targets = {rows[i] for i in batch["target_index"][batch["target_mask"]].tolist()}
    assert set(rows) == set(range(60)) - (positives - targets)


def test_negatives_come_from_the_whole_corpus(model, world):
    seen = set()
    for seed in range(60):
        rows = candidate_rows(collate(model, world, [0], num_random_negatives=8, seed=seed), world)
        assert len(rows) in (8, 9)
        seen.update(rows)
    assert seen == set(range(60))


def test_a_positive_that_was_not_drawn_is_ignored_for_its_own_row_only(model, world):
    for seed in range(20):
        batch = collate(model, world, [2, 2], max_targets=1, seed=seed)
        rows = candidate_rows(batch, world)
        assert batch["target_index"].shape == (2, 1)
        if len(rows) == 2:  # the two rows drew different targets: each other's is no negative
            assert batch["ignored"].tolist() == [[0, 1], [1, 0]]
            break
    else:
        pytest.fail("two draws of one target never differed")
    batch = collate(model, world, [0, 2], max_targets=1)
    assert batch["ignored"].tolist() == []


def test_the_draws_follow_from_seed_and_rows(model, world):
    first, again = (collate(model, world, [2, 5, 8], num_random_negatives=9) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = collate(model, world, [5, 2, 8], num_random_negatives=9)
    assert not torch.equal(first["candidates"], other["candidates"])


def test_anchored_models_get_text_and_vector(llama, world):
    batch = collate(build(llama, anchored=True), world, [3, 4])
    np.testing.assert_array_equal(batch["query_vectors"].numpy(), world.dataset.query_vectors[3:5])
    assert "input_ids" in batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_random_negatives": 61}, r"0 \.\.\. 60"),
        ({"num_random_negatives": -1}, r"0 \.\.\. 60"),
        ({"max_targets": 0}, "at least 1"),
    ],
)
def test_counts_that_cannot_be_are_refused(model, world, options, message):
    with pytest.raises(ValueError, match=message):
        AMERCollator(model, world.store, **{"num_random_negatives": 0, **options})


def test_a_store_of_another_size_or_encoder_is_refused(llama, world):
    with pytest.raises(ValueError, match="vectors of 5, the store holds vectors of 8"):
        AMERCollator(build(llama, document_dim=5), world.store, 0)
    stranger = {"name": "another", "revision": None, "document_prompt": "", "query_prompt": ""}
    with pytest.raises(ValueError, match="another"):
        AMERCollator(build(llama, document_encoder=stranger), world.store, 0)


def test_a_dataset_without_the_vectors_the_model_reads_is_refused(llama, world):
    collator = AMERCollator(build(llama, anchored=True), world.store, 0)
    example = {key: value for key, value in world.dataset[0].items() if key != "query_vector"}
    with pytest.raises(ValueError, match="with_query_vectors"):
        collator([example])
