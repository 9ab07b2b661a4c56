"""Ranked-list measures against formulas written out in plain Python, by hand, and against ndeval."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from amer.evaluation import mrecall_at_k, ranking_metrics

pytest.importorskip("pytrec_eval")
LOG3 = math.log2(3)
MEASURES = ("ndcg", "map", "precision", "mrr", "alpha_ndcg")


@pytest.mark.parametrize(
    ("retrieved", "targets", "k", "expected"),
    [
        pytest.param([1, 9, 2], [[1], [2]], 3, (1.5 / (1 + 1 / LOG3), (1 + 2 / 3) / 2, 2 / 3, 1, 1.5 / (1 + 1 / LOG3)),
                     id="two of two, one place wasted"),
        pytest.param([9, 1, 2], [[1], [2]], 2, (1 / LOG3 / (1 + 1 / LOG3), 1 / 4, 1 / 2, 1 / 2, 1 / (LOG3 + 1)),
                     id="what stands behind k does not count"),
        pytest.param([9, 8, 1], [[1]], 2, (0, 0, 0, 0, 0), id="the first hit stands behind k"),
        pytest.param([1, 2], [[1, 2], [3]], 2, (1, 2 / 3, 1, 1, (1 + 0.5 / LOG3) / (1 + 1 / LOG3)),
                     id="a target covered twice is new but once"),
        pytest.param([1, 2], [[1], [1, 2]], 2, (1, 1, 1, 1, 1), id="a document of two targets is two gains"),
        pytest.param([1, -1], [[1], [2]], 2, (1 / (1 + 1 / LOG3), 1 / 2, 1 / 2, 1, 1 / (1 + 1 / LOG3)),
                     id="padding is not relevant"),
        pytest.param([-1, -1], [[0]], 2, (0, 0, 0, 0, 0), id="nothing was retrieved"),
        pytest.param([1, 2], [[1, 2, 3, 4]], 1, (1, 1 / 4, 1, 1, 1), id="MAP divides by all that is relevant"),
    ],
)  # fmt: skip
def test_worked_example(retrieved, targets, k, expected):
    rows = np.array([retrieved, list(range(len(retrieved)))])
    values = ranking_metrics(rows, [targets, [[90, 91], [92]]], [k])
    assert [float(values[f"{name}@{k}"][0]) for name in MEASURES] == pytest.approx(expected)
    assert [float(values[f"{name}@{k}"][1]) for name in MEASURES] == [0] * 5


def by_the_book(ranked, targets, k):
    """The five measures of one query, from their definitions."""
    relevant = {row for cluster in targets for row in cluster}
    hits = [row in relevant for row in ranked if row >= 0][:k]
    dcg = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits, 1))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    precisions = [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, 1) if hit]
    first = next((rank for rank, hit in enumerate(hits, 1) if hit), math.inf)

    def alpha_dcg(documents):
        seen, total = [0] * len(targets), 0.0
        for rank, row in enumerate(documents[:k], 1):
            for target, cluster in enumerate(targets):
                if row in cluster:
                    total += 0.5 ** seen[target] / math.log2(rank + 1)
                    seen[target] += 1
        return total

    greedy, left = [], sorted(relevant)
    while left:
        seen = [sum(row in cluster for row in greedy) for cluster in targets]
        greedy.append(
            max(left, key=lambda row: sum(0.5**n for n, cluster in zip(seen, targets, strict=True) if row in cluster))
        )
        left.remove(greedy[-1])
    return (
        dcg / ideal,
        sum(precisions) / len(relevant),
        sum(hits) / k,
        1 / first,
        alpha_dcg(ranked) / alpha_dcg(greedy),
    )


@pytest.fixture(scope="module")
def random_runs():
    """200 lists of up to 30 of 60 documents, and up to eight overlapping targets each."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(60)[:30] for _ in range(200)])
    rows[np.arange(30) >= rng.integers(0, 40, (200, 1))] = -1
    targets = [
        [rng.choice(60, rng.integers(1, 7), replace=False).tolist() for _ in range(rng.integers(1, 9))] for _ in rows
    ]
    return rows, targets


def test_random_runs_agree_with_the_definitions(random_runs):
    rows, targets = random_runs
    values = ranking_metrics(rows, targets, [1, 5, 30])
    assert list(values) == [
        f"{name}@{k}" for k in (1, 5, 30) for name in ("ndcg", "map", "precision", "mrr", "alpha_ndcg")
    ]
    for k in (1, 5, 30):
        expected = np.array(
            [by_the_book(ranked, clusters, k) for ranked, clusters in zip(rows.tolist(), targets, strict=True)]
        )
        for column, name in enumerate(MEASURES):
            np.testing.assert_allclose(values[f"{name}@{k}"], expected[:, column], atol=1e-9, err_msg=f"{name}@{k}")
            assert 0 < expected[:, column].mean() < 1 and (expected[:, column] == 0).any()


def test_alpha_ndcg_is_that_of_ndeval_as_far_as_it_goes(random_runs):
    pyndeval = pytest.importorskip("pyndeval")
    rows, targets = random_runs
    names = [f"{99 - row:02d}" for row in range(60)]  # of equal gains ndeval takes the last id, we the first row
    judged = [
        (str(query), str(target), names[row], 1)
        for query, clusters in enumerate(targets)
        for target, cluster in enumerate(clusters)
        for row in cluster
    ]
    run = [
        (str(query), names[row], -float(rank))
        for query, ranked in enumerate(rows.tolist())
        for rank, row in enumerate(ranked)
        if row >= 0
    ]
    measures = [f"alpha-nDCG@{k}" for k in (3, 20)]
    theirs = pyndeval.RelevanceEvaluator(judged, measures, alpha=0.5).evaluate(run)
    ours = ranking_metrics(rows, targets, [3, 20])
    for k in (3, 20):
        expected = [theirs.get(str(query), {}).get(f"alpha-nDCG@{k}", 0.0) for query in range(len(rows))]
        np.testing.assert_allclose(ours[f"alpha_ndcg@{k}"], expected, atol=1e-9)


def test_the_order_of_a_list_of_a_thousand_is_kept_whatever_the_ids():
    """Ten and more digits sort otherwise as text: a library that broke ties by id would show."""
    rows = np.stack([np.arange(1_000), np.arange(1_000)[::-1]])
    values = ranking_metrics(rows, [[[999]], [[999]]], [1, 999, 1_000])
    np.testing.assert_allclose(values["mrr@1000"], [1 / 1_000, 1])
    np.testing.assert_allclose(values["mrr@999"], [0, 1])
    np.testing.assert_allclose(values["ndcg@1000"], [1 / math.log2(1_001), 1])


def test_a_list_that_covers_every_target_at_once_is_perfect_by_all_measures():
    rows, targets = np.array([[4, 2, 0, 9]]), [[[0], [2], [4]]]
    assert mrecall_at_k(rows, targets, 3)[0] == 1
    assert all(value[0] == pytest.approx(1) for value in ranking_metrics(rows, targets, [3]).values())


@pytest.mark.parametrize(
    ("rows", "targets", "ks", "message"),
    [
        ([[1, 2]], [[[1]]], [], "no cut-off"),
        ([[1, 2]], [[[1]]], [3], "k must lie in 1..2"),
        ([[1, 2]], [[[1]]], [0], "k must lie in 1..2"),
        ([[1, 2]], [], [1], "1 ranked lists for 0 queries"),
        ([[1, 2], [3, 3]], [[[1]], [[1]]], [1], "list number 1 holds row 3 twice"),
        ([[1, 2], [-1, 3]], [[[1]], [[1]]], [1], "list number 1 has padding"),
        ([[1, -2]], [[[1]]], [1], "must be -1 .* got -2"),
        ([[1.0, 2.0]], [[[1]]], [1], "integer rows"),
        ([1, 2], [[[1]]], [1], "integer rows"),
        ([[1, 2], [1, 2]], [[[1]], []], [1], "query number 1 has no targets"),
        ([[1, 2], [1, 2]], [[[1]], [[1], []]], [1], r"query number 1 has the target \[\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(rows, targets, ks, message):
    with pytest.raises(ValueError, match=message):
        ranking_metrics(np.array(rows), targets, ks)


def test_without_pytrec_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    with pytest.raises(ImportError, match=r"amer\[paper\]"):
        ranking_metrics(np.array([[1]]), [[[1]]], [1])
