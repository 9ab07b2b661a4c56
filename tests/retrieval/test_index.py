"""Every index returns what brute force in NumPy returns, pads alike and refuses alike."""

from __future__ import annotations

import builtins

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.retrieval import index as index_module
from amer.retrieval.index import ExactIndex, FaissIndex
from amer.retrieval.store import DocumentStore, write_store

INDEXES = [ExactIndex, FaissIndex]
COUNT, DIM = 57, 8


@pytest.fixture(scope="module", params=["float16", "float32"])
def store(request, tmp_path_factory) -> DocumentStore:
    names = [str(row) for row in range(COUNT)]
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = pa.table({"id": names, "title": names, "text": names})
    path = tmp_path_factory.mktemp("index") / "store"
    return write_store(path, documents, vectors, {"name": "toy"}, request.param, shard_size=10)


def make_queries(q: int = 6, m: int = 3) -> np.ndarray:
    queries = np.random.default_rng(1).standard_normal((q, m, DIM)).astype(np.float32)
    return queries / np.linalg.norm(queries, axis=-1, keepdims=True)


@pytest.mark.parametrize("make_index", INDEXES)
@pytest.mark.parametrize("k", [1, 9, 15, COUNT])
@pytest.mark.parametrize("block_rows", [4, 65_536])
def test_equals_brute_force(store, monkeypatch, make_index, k, block_rows):
    monkeypatch.setattr(index_module, "BLOCK_ROWS", block_rows)
    queries = make_queries()
    similarity = queries @ store.vectors(range(COUNT)).T
    expected = np.argsort(-similarity, axis=-1)[..., :k]
    rows, scores = make_index(store).search(queries, k)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, expected, axis=-1), atol=1e-6)


@pytest.mark.parametrize("make_index", INDEXES)
def test_more_than_there_is_gets_padded(store, make_index):
    rows, scores = make_index(store).search(make_queries(2, 2), COUNT + 3)
    assert rows.shape == scores.shape == (2, 2, COUNT + 3)
    assert (np.sort(rows[..., :COUNT]) == np.arange(COUNT)).all()
    assert (rows[..., COUNT:] == -1).all()
    assert np.isneginf(scores[..., COUNT:]).all()


@pytest.mark.parametrize("make_index", INDEXES)
def test_reads_tensors_of_any_layout_and_precision(store, make_index):
    index = make_index(store)
    queries = torch.from_numpy(make_queries()).requires_grad_()
    expected = index.search(make_queries().transpose(1, 0, 2).copy(), 5)
    for given in (queries.transpose(0, 1), queries.transpose(0, 1).double(), make_queries().transpose(1, 0, 2)):
        found = index.search(given, 5)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("make_index", INDEXES)
def test_no_query_gives_no_list(store, make_index):
    rows, scores = make_index(store).search(np.zeros((0, 3, DIM), dtype=np.float32), 4)
    assert rows.shape == scores.shape == (0, 3, 4)


@pytest.mark.parametrize("make_index", INDEXES)
@pytest.mark.parametrize(
    "queries, k, message",
    [
        (make_queries()[0], 3, r"\(q, m, 8\)"),
        (make_queries()[:, :, :-1], 3, r"\(q, m, 8\)"),
        (make_queries()[:, :0], 3, "m at least 1"),
        (make_queries() * np.float32(np.nan), 3, "NaN"),
        (make_queries() * np.float32(np.inf), 3, "infinite"),
        (make_queries(), 0, "k must be at least 1"),
    ],
)
def test_bad_queries_are_refused(store, make_index, queries, k, message):
    with pytest.raises(ValueError, match=message):
        make_index(store).search(queries, k)


def test_the_scores_held_at_a_time_are_bounded():
    for queries in (0, 1, 5_000, 10**6, 10**9):
        rows = index_module._block_rows(queries)
        assert 1 <= rows <= index_module.BLOCK_ROWS
        assert rows * queries <= max(index_module.BLOCK_SCORES, queries)


def test_a_missing_faiss_is_named(store, monkeypatch):
    real = builtins.__import__

    def without_faiss(name, *rest):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(ImportError, match="faiss-cpu"):
        FaissIndex(store)
