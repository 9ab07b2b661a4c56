"""MMR: equal to Eq. 3 taken word for word, with ties, padding and stores in half precision; lambda is tuned."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from amer.baselines.mmr import mmr, tune_trade_off
from amer.corpus.store import DocumentStore, write_store


@pytest.fixture
def make_store(tmp_path):
    def make(vectors: np.ndarray, dtype: str = "float32") -> DocumentStore:
        names = [str(row) for row in range(len(vectors))]
        documents = pa.table({name: names for name in ("id", "title", "text")})
        return write_store(tmp_path / "store", documents, vectors, {"name": "toy"}, dtype, 16)

    return make


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def plain_greedy(rows, scores, store, k, trade_off) -> tuple[list, list]:
    """Eq. 3 word for word, in double precision, for one question."""
    left = [(int(row), float(score)) for row, score in zip(rows, scores, strict=True) if row >= 0]
    vectors = store.vectors(range(len(store))).astype(np.float64)
    chosen, values = [], []

    def cosine(one: int, other: int) -> float:
        first, second = vectors[one], vectors[other]
        return first @ second / np.linalg.norm(first) / np.linalg.norm(second)

    def value(candidate: tuple[int, float]) -> float:
        nearest = max((cosine(candidate[0], row) for row in chosen), default=-1)
        return trade_off * candidate[1] - (1 - trade_off) * nearest

    while left and len(chosen) < k:
        best = max(left, key=value)  # the first of equals
        values.append(value(best))
        chosen.append(best[0])
        left.remove(best)
    missing = k - len(chosen)
    return chosen + [-1] * missing, values + [-np.inf] * missing


def assert_equals_plain_greedy(rows, scores, store, k, trade_off) -> None:
    found, values = mmr(rows, scores, store, k, trade_off)
    expected = [plain_greedy(*question, store, k, trade_off) for question in zip(rows, scores, strict=True)]
    assert found.tolist() == [chosen for chosen, _ in expected]
    np.testing.assert_allclose(values, [worth for _, worth in expected], atol=1e-5)
    assert found.dtype == np.int64 and values.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("trade_off, k", [(0.0, 5), (0.5, 12), (0.75, 7), (0.9, 30), (1.0, 12)])
def test_mmr_equals_the_plain_greedy(make_store, monkeypatch, dtype, trade_off, k):
    rng = np.random.default_rng(k)
    store = make_store(unit(rng, 40, 6), dtype)
    monkeypatch.setattr("amer.baselines.mmr.GATHER_VALUES", 3 * 12 * 6)  # three questions a block
    queries = unit(rng, 7, 6)
    scores = queries @ store.vectors(range(40)).T
    rows = np.argsort(-scores, axis=1)[:, :12]
    scores = np.take_along_axis(scores, rows, axis=1)
    rows[rng.random(rows.shape) < 0.2], rows[3] = -1, -1
    scores[rows < 0] = -np.inf
    before = rows.copy(), scores.copy()
    assert_equals_plain_greedy(rows, scores, store, k, trade_off)
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(scores, before[1])


@pytest.mark.parametrize("trade_off", [0.0, 0.5, 0.75])
def test_of_equal_candidates_the_earlier_is_chosen(make_store, trade_off):
    rng = np.random.default_rng(0)
    store = make_store(rng.choice([-0.5, 0.5], size=(30, 4)))  # all cosines are exact: many ties
    rows = np.stack([rng.permutation(30)[:20] for _ in range(6)])
    scores = rng.choice([0.25, 0.5, 0.75], size=rows.shape)
    assert_equals_plain_greedy(rows, scores, store, 20, trade_off)


def test_by_hand(make_store):
    angles = np.radians([0, 10, 60, -90])
    store = make_store(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    rows, scores = np.array([[0, 1, 2, 3]]), np.cos(angles)[None]  # the query lies on document 0
    chosen, values = mmr(rows, scores, store, 3, trade_off=0.75)
    # Second: 0.75 cos 10 - 0.25 cos 10 = 0.49, against 0.25 for document 2 and 0 for document 3.
    # Third: 0.75 cos 60 - 0.25 cos 50 = 0.21, against 0 for document 3.
    assert chosen.tolist() == [[0, 1, 2]]
    third = 0.75 * 0.5 - 0.25 * np.cos(np.radians(50))
    np.testing.assert_allclose(values, [[0.75 + 0.25, 0.5 * np.cos(np.radians(10)), third]], atol=1e-6)
    assert mmr(rows, scores, store, 3, trade_off=0.4)[0].tolist() == [[0, 3, 2]]


def test_values_never_rise_so_the_run_is_sorted_by_them(make_store):
    rng = np.random.default_rng(0)
    store = make_store(unit(rng, 60, 3))
    rows = np.stack([rng.permutation(60) for _ in range(20)])
    scores = rng.uniform(-1, 1, rows.shape)
    values = mmr(rows, scores, store, 60, trade_off=0.5)[1]
    assert (np.diff(values, axis=1) <= 0).all()


def test_no_question_gives_no_list(make_store):
    store = make_store(np.eye(4))
    found, values = mmr(np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3)), store, 2, 0.5)
    assert found.shape == values.shape == (0, 2)


@pytest.mark.parametrize(
    "rows, scores, k, trade_off, message",
    [
        (np.zeros((1, 2, 1), int), np.zeros((1, 2, 1)), 1, 0.5, r"\(q, n\)"),
        (np.zeros((1, 0), int), np.zeros((1, 0)), 1, 0.5, r"\(q, n\)"),
        (np.zeros((1, 2)), np.zeros((1, 2)), 1, 0.5, "integers"),
        (np.zeros((1, 2), int), np.zeros((1, 3)), 1, 0.5, "as many as rows"),
        (np.zeros((1, 2), int), np.full((1, 2), np.nan), 1, 0.5, "finite"),
        (np.zeros((1, 2), int), np.full((1, 2), -np.inf), 1, 0.5, "finite"),
        (np.full((1, 2), -2), np.zeros((1, 2)), 1, 0.5, "-1"),
        (np.zeros((1, 2), int), np.zeros((1, 2)), 0, 0.5, "k must"),
        (np.zeros((1, 2), int), np.zeros((1, 2)), 1, 1.5, "trade_off"),
        (np.zeros((1, 2), int), np.zeros((1, 2)), 1, np.nan, "trade_off"),
    ],
)
def test_bad_candidates_are_refused(make_store, rows, scores, k, trade_off, message):
    with pytest.raises(ValueError, match=message):
        mmr(rows, scores, make_store(np.eye(4)), k, trade_off)


def test_the_trade_off_of_the_best_metric_is_chosen(make_store):
    store = make_store(np.array([[1, 0], [0.99, np.sqrt(1 - 0.99**2)], [0, 1]]))
    rows, scores = np.array([[0, 1, 2]]), np.array([[1, 0.99, 0.3]])

    def finds_the_last(chosen: np.ndarray) -> float:
        return float((chosen == 2).any(axis=1).mean())

    best, metrics = tune_trade_off(rows, scores, store, 2, finds_the_last)
    assert (best, metrics) == (0.5, {0.5: 1.0, 0.75: 0.0, 0.9: 0.0})


def test_of_equally_good_trade_offs_the_largest_is_chosen(make_store):
    rows, scores = np.array([[0, 1]]), np.array([[1.0, 0.5]])
    store = make_store(np.eye(4))
    best, metrics = tune_trade_off(rows, scores, store, 2, len, (0.5, 0.9))
    assert (best, metrics) == (0.9, {0.5: 1.0, 0.9: 1.0})
    for metric, trade_offs in ((len, ()), (lambda chosen: np.nan, (0.5,))):
        with pytest.raises(ValueError, match="metric"):
            tune_trade_off(rows, scores, store, 2, metric, trade_offs)
