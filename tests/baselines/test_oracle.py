"""The oracle: the targets themselves where they are few, centres of their clusters where they are many."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from amer.baselines.averaging import average
from amer.baselines.oracle import oracle_query_embeddings
from amer.corpus.store import DocumentStore, write_store
from amer.evaluation import mrecall_at_k
from amer.search import ExactIndex, round_robin


def make_store(path, vectors: np.ndarray, dtype: str = "float32") -> DocumentStore:
    names = [str(row) for row in range(len(vectors))]
    documents = pa.table({name: names for name in ("id", "title", "text")})
    return write_store(path / "store", documents, vectors, {"name": "toy"}, dtype)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    return make_store(tmp_path, unit(np.random.default_rng(0).standard_normal((300, 16))), "float16")


def test_few_targets_are_the_query_vectors_and_repeat(store):
    embeddings = oracle_query_embeddings([[[5, 9], [2]], [[7]], [[1], [3], [8]]], store, 3, seed=0)
    assert embeddings.shape == (3, 3, 16) and embeddings.dtype == np.float32
    expected = unit(store.vectors([[5, 2, 5], [7, 7, 7], [1, 3, 8]]).astype(np.float64))
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=2), 1, atol=1e-6)


def test_many_targets_are_found_by_the_centres_of_their_clusters(tmp_path):
    rng = np.random.default_rng(0)
    middles = np.repeat(np.eye(16)[:3], [4, 1, 2], axis=0)
    store = make_store(tmp_path, unit(middles + 0.02 * rng.standard_normal(middles.shape)))
    embeddings = oracle_query_embeddings([[[row] for row in range(7)]], store, 3, seed=0)[0]
    vectors = store.vectors(range(7))
    expected = unit(np.stack([vectors[:4].mean(0), vectors[4], vectors[5:].mean(0)]))
    order = np.argmax(embeddings @ expected.T, axis=0)
    np.testing.assert_allclose(embeddings[order], expected, atol=1e-6)


def test_the_oracle_finds_what_no_single_vector_does(store):
    targets = np.random.default_rng(1).permutation(300).reshape(60, 5, 1).tolist()
    found = {}
    for m in (1, 3, 5):
        embeddings = oracle_query_embeddings(targets, store, m, seed=0)
        rows = round_robin(*ExactIndex(store).search(embeddings, 10), 10).rows
        found[m] = mrecall_at_k(rows, targets, 10).mean()
    assert found[1] < found[3] < found[5] == 1
    np.testing.assert_allclose(
        oracle_query_embeddings(targets, store, 1, seed=0),
        average(unit(store.vectors(np.squeeze(targets, 2)))),
        atol=1e-3,
    )


def test_targets_that_share_a_document_count_once(store):
    embeddings = oracle_query_embeddings([[[4], [4], [4], [6]]], store, 3, seed=0)
    np.testing.assert_allclose(embeddings[0], unit(store.vectors([4, 6, 4])), atol=1e-3)


def test_the_centres_follow_from_the_seed(store):
    targets = np.random.default_rng(2).integers(0, 300, (40, 8, 1)).tolist()
    first, again = (oracle_query_embeddings(targets, store, 5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, oracle_query_embeddings(targets, store, 5, seed=4))


@pytest.mark.parametrize(
    "targets, m, message",
    [
        ([[[1]]], 0, "m must"),
        ([], 2, "question"),
        ([[[1]], []], 2, "question number 1"),
        ([[[1]], [[2], []]], 2, "question number 1"),
    ],
)
def test_bad_targets_are_refused(store, targets, m, message):
    with pytest.raises(ValueError, match=message):
        oracle_query_embeddings(targets, store, m, seed=0)


def test_targets_that_cancel_out_are_refused(tmp_path):
    with pytest.raises(ValueError, match="question number 0: the mean"):
        oracle_query_embeddings([[[0], [1]]], make_store(tmp_path, np.array([[1.0, 0], [-1, 0]])), 1, seed=0)
