"""Fusion: round-robin equals the plain loop; the mixture's score equals its formula; MaxSim would be of no use."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus.store import DocumentStore, write_store
from amer.search.fusion import Fused, max_score, mixture, reciprocal_rank, round_robin


def plain_loop(rows: np.ndarray, scores: np.ndarray, k: int) -> Fused:
    """The definition: rank 1 of every list in order, then rank 2; what was seen or is padding is skipped."""
    fused = []
    for question_rows, question_scores in zip(rows, scores, strict=True):
        taken: dict[int, tuple] = {}
        for rank in range(rows.shape[2]):
            for list_number in range(rows.shape[1]):
                row = int(question_rows[list_number, rank])
                if row >= 0 and row not in taken and len(taken) < k:
                    taken[row] = (row, question_scores[list_number, rank], list_number, rank)
        fused.append([*taken.values(), *[(-1, -np.inf, -1, -1)] * (k - len(taken))])
    return Fused(*(np.array([[hit[field] for hit in question] for question in fused]) for field in range(4)))


def assert_same(fused: Fused, expected: Fused) -> None:
    for name, field, wanted in zip(Fused._fields, fused, expected, strict=True):
        np.testing.assert_array_equal(field, wanted, err_msg=name)
    assert [field.dtype for field in fused] == [np.int64, np.float32, np.int64, np.int64]


def random_lists(rng, questions, m, n, pool, padding) -> tuple[np.ndarray, np.ndarray]:
    """Lists with repeats inside and across them, and padding anywhere."""
    rows = rng.integers(0, pool, size=(questions, m, n))
    rows[rng.random(rows.shape) < padding] = -1
    return rows, rng.standard_normal(rows.shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(60))
def test_round_robin_equals_the_plain_loop(seed):
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 7), rng.integers(1, 30), rng.integers(1, 60)
    rows, scores = random_lists(rng, 20, m, n, pool=rng.choice([1, 5, 50, 10**9]), padding=rng.choice([0, 0.3, 1]))
    before = rows.copy()
    assert_same(round_robin(rows, scores, k), plain_loop(rows, scores, k))
    np.testing.assert_array_equal(rows, before)


def test_questions_of_much_and_of_little_overlap_share_a_batch():
    rng = np.random.default_rng(0)
    disjoint = np.arange(500).reshape(1, 5, 100)
    same = np.broadcast_to(rng.permutation(100), (1, 5, 100))
    rows = np.concatenate([disjoint, same, disjoint[:, :, ::-1]])
    scores = rng.standard_normal(rows.shape).astype(np.float32)
    assert_same(round_robin(rows, scores, 100), plain_loop(rows, scores, 100))


@pytest.mark.parametrize(
    "lists, k, rows, found_by, found_at",
    [
        ([[1, 2, 3], [4, 5, 6]], 4, [1, 4, 2, 5], [0, 1, 0, 1], [0, 0, 1, 1]),
        ([[1, 2, 3], [2, 1, 4]], 4, [1, 2, 3, 4], [0, 1, 0, 1], [0, 0, 2, 2]),
        ([[7, 7, 8], [7, 9, 7]], 3, [7, 9, 8], [0, 1, 0], [0, 1, 2]),
        ([[-1, 2], [3, -1]], 3, [3, 2, -1], [1, 0, -1], [0, 1, -1]),
        ([[5, 6, 7]], 2, [5, 6], [0, 0], [0, 1]),
        ([[-1, -1]], 2, [-1, -1], [-1, -1], [-1, -1]),
        ([[0], [0]], 3, [0, -1, -1], [0, -1, -1], [0, -1, -1]),
    ],
)
def test_round_robin_by_hand(lists, k, rows, found_by, found_at):
    lists = np.array([lists])
    fused = round_robin(lists, np.zeros(lists.shape), k)
    assert fused.rows.tolist() == [rows]
    assert fused.found_by.tolist() == [found_by]
    assert fused.found_at.tolist() == [found_at]
    assert np.isneginf(fused.scores).tolist() == [[row < 0 for row in rows]]


def test_no_question_gives_no_list():
    fused = round_robin(np.zeros((0, 2, 3), dtype=np.int64), np.zeros((0, 2, 3)), 4)
    assert [field.shape for field in fused] == [(0, 4)] * 4


@pytest.mark.parametrize(
    "rows, scores, k, message",
    [
        (np.zeros((2, 3), int), np.zeros((2, 3)), 1, r"\(q, m, n\)"),
        (np.zeros((2, 0, 3), int), np.zeros((2, 0, 3)), 1, r"\(q, m, n\)"),
        (np.zeros((2, 1, 3)), np.zeros((2, 1, 3)), 1, "integers"),
        (np.zeros((2, 1, 3), int), np.zeros((2, 1, 2)), 1, "must be equal"),
        (np.zeros((2, 1, 3), int), np.zeros((2, 1, 3)), 0, "k must"),
        (np.full((2, 1, 3), -2), np.zeros((2, 1, 3)), 1, "-1"),
        (np.full((2, 1, 3), 2**62), np.zeros((2, 1, 3)), 1, "too large"),
    ],
)
def test_bad_lists_are_refused(rows, scores, k, message):
    with pytest.raises(ValueError, match=message):
        round_robin(rows, scores, k)


def test_reciprocal_rank_by_hand():
    lists = np.array([[[1, 2, 3, -1], [2, 4, 1, -1], [2, 1, -1, 5]]])
    fused = reciprocal_rank(lists, np.ones(lists.shape), 6)
    expected = {
        2: (1 / 62 + 1 / 61 + 1 / 61, 1, 0),  # best in the second list, as in the third
        1: (1 / 61 + 1 / 63 + 1 / 62, 0, 0),
        4: (1 / 62, 1, 1),
        3: (1 / 63, 0, 2),
        5: (1 / 64, 2, 3),  # padding before it takes a rank
    }
    assert fused.rows.tolist() == [[*expected, -1]]
    np.testing.assert_allclose(fused.scores[0, :5], [score for score, *_ in expected.values()], rtol=1e-6)
    assert fused.found_by.tolist() == [[by for _, by, _ in expected.values()] + [-1]]
    assert fused.found_at.tolist() == [[at for *_, at in expected.values()] + [-1]]
    assert np.isneginf(fused.scores[0, 5])


def test_equal_sums_of_reciprocal_ranks_keep_the_round_robin_order():
    lists = np.array([[[7, 8, 9], [8, 9, 7], [9, 7, 8]]])  # every document has each rank once
    fused = reciprocal_rank(lists, np.zeros(lists.shape), 3)
    assert fused.rows.tolist() == round_robin(lists, np.zeros(lists.shape), 3).rows.tolist() == [[7, 8, 9]]
    assert len(np.unique(fused.scores)) == 1


def plain_reciprocal_rank(rows: np.ndarray, k: int) -> Fused:
    """The definition, document by document; a document counts once a list."""
    fused = []
    for lists in rows.tolist():
        ranks = [{row: at for at, row in reversed([*enumerate(own)]) if row >= 0} for own in lists]
        hits = []
        for row in {row for own in ranks for row in own}:
            at, by = min((own[row], by) for by, own in enumerate(ranks) if row in own)
            score = np.float32(sum(sorted(1 / (61 + own[row]) for own in ranks if row in own)))
            hits.append((row, score, by, at))
        hits.sort(key=lambda hit: (-hit[1], hit[3], hit[2]))
        fused.append([*hits, *[(-1, -np.inf, -1, -1)] * k][:k])
    return Fused(*(np.array([[hit[field] for hit in question] for question in fused]) for field in range(4)))


@pytest.mark.parametrize("seed", range(20))
def test_reciprocal_rank_equals_the_plain_definition(seed):
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 7), rng.integers(1, 30), rng.integers(1, 60)
    rows, scores = random_lists(rng, 20, m, n, pool=rng.choice([1, 5, 50, 2**62]), padding=rng.choice([0, 0.3, 1]))
    assert_same(reciprocal_rank(rows, scores, k), plain_reciprocal_rank(rows, k))


def test_reciprocal_rank_refuses_what_round_robin_refuses():
    with pytest.raises(ValueError, match="the shapes must be equal"):
        reciprocal_rank(np.zeros((2, 1, 3), int), np.zeros((2, 1, 2)), 1)
    assert reciprocal_rank(np.zeros((0, 2, 3), int), np.zeros((0, 2, 3)), 4).rows.shape == (0, 4)


def unit(rng, *shape) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DocumentStore:
    names = [str(row) for row in range(40)]
    documents = pa.table({"id": names, "title": names, "text": names})
    vectors = unit(np.random.default_rng(0), 40, 6)
    return write_store(tmp_path_factory.mktemp("fusion") / "store", documents, vectors, {"name": "toy"}, "float32", 16)


def top_lists(queries: np.ndarray, store: DocumentStore, n: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries @ store.vectors(range(len(store))).T
    rows = np.argsort(-scores, axis=-1)[..., :n]
    return rows, np.take_along_axis(scores, rows, axis=-1)


@pytest.mark.parametrize("m, n, k", [(1, 8, 8), (3, 8, 5), (3, 8, 24), (3, 8, 40), (5, 40, 40)])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_mixture_equals_its_formula_over_the_union(store, monkeypatch, m, n, k, temperature):
    monkeypatch.setattr("amer.search.fusion.GATHER_VALUES", 3 * m * n * store.dim)  # several gathers
    queries = unit(np.random.default_rng(m), 7, m, store.dim)
    rows, scores = top_lists(queries, store, n)
    fused = mixture(rows, scores, k, queries, store, temperature)
    for question in range(7):
        union = np.unique(rows[question])
        similarity = queries[question].astype(np.float64) @ store.vectors(union).T.astype(np.float64)
        expected = np.log(np.exp(similarity / temperature).sum(axis=0))
        best = np.argsort(-expected)[:k]
        assert fused.rows[question, : len(best)].tolist() == union[best].tolist()
        np.testing.assert_allclose(fused.scores[question, : len(best)], expected[best], rtol=1e-5, atol=1e-5)
        assert (fused.rows[question, len(best) :] == -1).all()
        assert np.isneginf(fused.scores[question, len(best) :]).all()
        for row, by, at in zip(*(field[question, : len(best)] for field in (fused.rows, *fused[2:])), strict=True):
            assert rows[question, by, at] == row


def test_the_mixture_prefers_a_document_near_two_query_vectors(tmp_path):
    angles = np.array([0.0, 0.1, 0.6])  # on the unit circle; queries at 0.04 and 0.2
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    documents = pa.table({name: ["a", "b", "c"] for name in ("id", "title", "text")})
    store = write_store(tmp_path / "store", documents, vectors, {"name": "toy"})
    queries = np.array([[[np.cos(angle), np.sin(angle)] for angle in (0.04, 0.2)]], dtype=np.float32)
    rows, scores = top_lists(queries, store, 3)
    assert round_robin(rows, scores, 3).rows.tolist() == [[0, 1, 2]]
    assert mixture(rows, scores, 3, queries, store, temperature=0.05).rows.tolist() == [[1, 0, 2]]


def test_with_one_query_vector_the_mixture_keeps_the_list_whatever_its_scores(store):
    rng = np.random.default_rng(0)
    rows, scores = np.array([[[5, 3, 5, -1, 9]]]), rng.random((1, 1, 5))
    fused = mixture(rows, scores, 4, unit(rng, 1, 1, store.dim), store, temperature=0.5)
    assert fused.rows.tolist() == [[5, 3, 9, -1]]
    np.testing.assert_allclose(fused.scores[0, :3], scores[0, 0, [0, 1, 4]] * 2, rtol=1e-6)


def test_the_mixture_skips_padding(store):
    queries = unit(np.random.default_rng(0), 1, 2, store.dim)
    rows = np.array([[[-1, 3], [4, -1]]])
    fused = mixture(rows, np.zeros(rows.shape), 3, queries, store, temperature=0.05)
    assert sorted(fused.rows[0, :2].tolist()) == [3, 4]
    assert fused.rows[0, 2] == -1
    assert np.isneginf(fused.scores[0, 2])


def test_every_fusion_is_called_alike(store):
    queries = unit(np.random.default_rng(0), 2, 3, store.dim)
    rows, scores = top_lists(queries, store, 4)
    for fusion in (round_robin, reciprocal_rank, partial(mixture, temperature=0.05)):
        assert fusion(rows, scores, 5, queries, store).rows.shape == (2, 5)


@pytest.mark.parametrize("temperature, shape", [(0, (1, 2, 6)), (np.nan, (1, 2, 6)), (1, (1, 2, 5)), (1, (2, 6))])
def test_the_mixture_refuses_bad_arguments(store, temperature, shape):
    with pytest.raises(ValueError, match=r"temperature|query_embeddings"):
        mixture(np.zeros((1, 2, 3), int), np.zeros((1, 2, 3)), 2, np.zeros(shape), store, temperature)


def test_summing_over_query_vectors_only_ranks_by_their_average(store):
    """MaxSim with one vector per document is the averaged query's ranking, so it must never score AMER."""
    queries = unit(np.random.default_rng(0), 50, 5, store.dim)
    documents = store.vectors(range(len(store)))
    of_many_vectors = documents[:, None, :]  # (documents, vectors of each = 1, dim)
    maxsim = np.einsum("qid,nvd->qniv", queries, of_many_vectors).max(axis=3).sum(axis=2)
    averaged = queries.mean(axis=1) @ documents.T
    np.testing.assert_array_equal(np.argsort(-maxsim, axis=1), np.argsort(-averaged, axis=1))
    rows, scores = top_lists(queries, store, 10)
    assert (round_robin(rows, scores, 10).rows != np.argsort(-maxsim, axis=1)[:, :10]).any(axis=1).mean() > 0.5


def plain_max_score(rows: np.ndarray, scores: np.ndarray, k: int) -> Fused:
    """The definition: every document with its greatest score; of equal ones the first of the round-robin order."""
    fused = []
    for question_rows, question_scores in zip(rows, scores, strict=True):
        best: dict[int, tuple] = {}
        for rank in range(rows.shape[2]):
            for list_number in range(rows.shape[1]):
                row, score = int(question_rows[list_number, rank]), question_scores[list_number, rank]
                if row >= 0 and (row not in best or score > best[row][1]):
                    best[row] = (row, score, list_number, rank)
        ranked = sorted(best.values(), key=lambda place: (-place[1], place[3], place[2]))[:k]
        fused.append([*ranked, *[(-1, -np.inf, -1, -1)] * (k - len(ranked))])
    return Fused(*(np.array([[hit[field] for hit in question] for question in fused]) for field in range(4)))


@pytest.mark.parametrize("seed", range(40))
def test_max_score_equals_the_plain_loop(seed):
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 7), rng.integers(1, 30), rng.integers(1, 60)
    rows, scores = random_lists(rng, 20, m, n, pool=rng.choice([1, 5, 50, 10**9]), padding=rng.choice([0, 0.3, 1]))
    if seed % 2:
        scores = np.round(scores)  # ties
    assert_same(max_score(rows, scores, k), plain_max_score(rows, scores, k))


def test_max_score_refuses_what_the_others_refuse():
    with pytest.raises(ValueError, match="k must be at least 1"):
        max_score(np.zeros((1, 1, 1), dtype=int), np.zeros((1, 1, 1)), 0)
