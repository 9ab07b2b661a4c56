"""What a batch holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus import write_store
from amer.trainer import AMERCollator
from tests.conftest import build


def collate(model, world, rows, **options):
    return AMERCollator(model, world.store, **{"num_random_negatives": 0, **options})(
        [world.dataset[row] for row in rows]
    )


@pytest.fixture(scope="module")
def model(llama):
    return build(llama)


def test_targets_of_unequal_number_are_padded_and_masked(model, world):
    batch = collate(model, world, [0, 1, 2])
    assert (batch["target_ids"] >= 0).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    found = [{id for id in ids if id >= 0} for ids in batch["target_ids"].tolist()]
    assert found[0] == {0} and found[1] in ({2, 3}, {50, 3}) and found[2] == {4, 5, 6}
    assert batch["sampling_uniforms"].shape == (3, 3) and batch["sampling_uniforms"].dtype == torch.float32
    assert batch["input_ids"].shape[0] == 3 and "input_vectors" not in batch


def test_targets_are_shuffled_and_clusters_sampled(model, world):
    seen = set()
    for seed in range(40):
        seen.add(tuple(collate(model, world, [1], seed=seed)["target_ids"][0].tolist()))
    assert seen == {(2, 3), (3, 2), (50, 3), (3, 50)}


def test_a_document_enters_the_candidates_once_with_its_vector(model, world):
    batch = collate(model, world, [1, 2, 2, 3], num_random_negatives=30)
    ids = batch["candidate_ids"].tolist()
    assert ids == sorted(set(ids)) and len(ids) > 30
    assert set(batch["target_ids"].flatten().tolist()) - {-1} <= set(ids)
    np.testing.assert_array_equal(batch["candidates"].numpy(), world.vectors[ids])


def test_negatives_come_from_the_whole_corpus(model, world):
    seen = set()
    for seed in range(60):
        ids = collate(model, world, [0], num_random_negatives=8, seed=seed)["candidate_ids"].tolist()
        assert len(ids) in (8, 9)
        seen.update(ids)
    assert seen == set(range(60))


def test_a_positive_that_was_not_drawn_is_known_for_its_own_row_only(model, world):
    batch = collate(model, world, [0, 2], max_targets=1)
    (target,) = batch["target_ids"][1].tolist()
    assert batch["target_ids"].shape == (2, 1)
    assert batch["other_positives"].tolist() == [[1, id] for id in (4, 5, 6) if id != target]
    other = {2: 50, 50: 2}
    batch = collate(model, world, [1])  # the other document of a cluster
    assert batch["other_positives"].tolist() == [
        [0, other[id]] for id in batch["target_ids"][0].tolist() if id in other
    ]


def test_the_draws_follow_from_seed_epoch_and_row(model, world):
    def row(rows, place, epoch=0, **options):
        collator = AMERCollator(model, world.store, num_random_negatives=9, **options)
        batch = collator([{**world.dataset[row], "epoch": epoch} for row in rows])
        return batch["target_ids"][place].tolist(), batch["sampling_uniforms"][place].tolist()

    alone = row([5], 0)
    assert row([2, 5, 8], 1) == row([8, 5, 2], 1) == alone  # whatever the batch
    assert row([5], 0, epoch=1) != alone and row([5], 0, seed=1) != alone
    apart = [collate(model, world, [row], num_random_negatives=9)["candidate_ids"].tolist() for row in (2, 5)]
    together = collate(model, world, [2, 5], num_random_negatives=9)["candidate_ids"].tolist()
    assert together == sorted(set().union(*apart))


def test_every_question_brings_its_own_negatives_and_others_in_another_epoch(model, world):
    def drawn(rows, epoch):
        collator = AMERCollator(model, world.store, num_random_negatives=5)
        return collator([{**world.dataset[row], "epoch": epoch} for row in rows])["candidate_ids"].tolist()

    assert len(drawn([0], 0)) <= 6 < 12 < len(drawn([0, 3, 6, 9], 0))
    assert drawn([0], 0) != drawn([0], 1)


def test_one_document_for_two_answers_is_one_target(model, world):
    twice = {"index": 0, "query": "a question", "target_rows": [[7], [7], [9]]}
    batch = AMERCollator(model, world.store, 0)([twice])
    assert sorted(batch["target_ids"][0].tolist()) == [7, 9]


def test_candidates_come_in_the_precision_of_the_store(model, world, tmp_path):
    documents = pa.table({name: world.store.ids for name in ("id", "title", "text")})
    store = write_store(tmp_path / "half", documents, world.vectors, world.store.encoder, dtype="float16")
    batch = AMERCollator(model, store, 3)([world.dataset[0]])
    assert batch["candidates"].dtype == torch.float16


def test_anchored_models_get_text_and_vector(llama, world):
    batch = collate(build(llama, anchored=True), world, [3, 4])
    np.testing.assert_array_equal(batch["input_vectors"].numpy(), world.dataset.input_vectors[3:5])
    assert "input_ids" in batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_random_negatives": 61}, "between 0 and 60"),
        ({"num_random_negatives": -1}, "between 0 and 60"),
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
    with pytest.raises(ValueError, match="with_input_vectors"):
        collator([example])
