"""The cheapest setting that reaches a recall is found, and recall is what it says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus.store import write_store
from amer.search.index.faiss.tuning import Setting, Truth, exact_truth, recall_of, tune


def test_the_width_is_doubled_and_then_halved_back():
    tried = []

    def measure(setting: Setting) -> float:
        tried.append(setting.width)
        return setting.width / 100

    tuned = tune(measure, lambda setting: setting.width, 0.7, (1, 100), rescored=False)
    assert tried == [1, 2, 4, 8, 16, 32, 64, 100, 82, 73, 68]
    assert tuned == (Setting(73, 0), 0.73)


def test_the_cheaper_of_many_candidates_and_a_great_width_wins():
    def measure(setting: Setting) -> float:
        return min(1.0, 0.01 * setting.width + 0.1 * setting.candidates)

    wide = tune(measure, lambda setting: setting.width + 1000 * setting.candidates, 0.5, (1, 64), rescored=True)
    deep = tune(measure, lambda setting: 1000 * setting.width + setting.candidates, 0.5, (1, 64), rescored=True)
    assert (wide.setting.candidates, deep.setting) == (1, Setting(1, 10))
    assert wide.recall >= 0.5
    assert deep.recall >= 0.5


def test_an_index_without_width_is_tuned_by_candidates_alone():
    tuned = tune(lambda setting: setting.candidates / 10, lambda setting: setting.candidates, 0.3, None, rescored=True)
    assert tuned == (Setting(None, 4), 0.4)


def test_a_recall_out_of_reach_says_how_far_it_came():
    with pytest.raises(ValueError, match=r"recall 0\.9 is out of reach, the index reaches 0\.6400"):
        tune(lambda setting: setting.width / 100, lambda setting: setting.width, 0.9, (1, 64), rescored=False)


def test_recall_leaves_out_a_document_that_finds_itself():
    truth = Truth(torch.empty(3, 1), torch.tensor([7, -1, 2]), torch.tensor([[1, 2], [3, 4], [5, -1]]))
    assert recall_of(torch.tensor([[7, 1, 2], [3, 4, 9], [5, 2, -1]]), truth) == 1
    assert recall_of(torch.tensor([[1, 7, 3], [9, 8, 4], [-1, -1, -1]]), truth) == pytest.approx(1 / 5)


@pytest.fixture
def store(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((60, 4))
    names = [str(row) for row in range(60)]
    documents = pa.table({"id": names, "title": names, "text": names})
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return write_store(tmp_path / "store", documents, vectors, {"name": "toy"}, shard_size=20)


def test_the_truth_is_exact_and_the_same_each_time(store):
    truth = exact_truth(store, None, 5, seed=3, show_progress_bar=False)
    similarity = store.vectors(range(60)) @ store.vectors(range(60)).T
    np.fill_diagonal(similarity, -np.inf)
    np.testing.assert_array_equal(truth.rows, np.argsort(-similarity[truth.own], axis=1)[:, :5])
    again = exact_truth(store, None, 5, seed=3, show_progress_bar=False)
    assert all(torch.equal(one, other) for one, other in zip(truth, again, strict=True))


def test_the_users_own_queries_may_find_every_document(store):
    truth = exact_truth(store, store.vectors([4, 9]), 3, seed=0, show_progress_bar=False)
    assert truth.rows[:, 0].tolist() == [4, 9]
    assert truth.own.tolist() == [-1, -1]


@pytest.mark.parametrize("queries", [np.ones((2, 5)), np.ones(4), np.ones((0, 4)), np.full((2, 4), np.nan)])
def test_queries_that_do_not_fit_are_refused(store, queries):
    with pytest.raises(ValueError, match="quer"):
        exact_truth(store, queries, 3, seed=0, show_progress_bar=False)
