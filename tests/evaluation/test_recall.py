from __future__ import annotations

import numpy as np
import pytest

from amer.evaluation import mrecall_at_k, recall, recall_at_k
from amer.evaluation.recall import NO_TARGET, NOT_FOUND, target_ranks

TABLE = [
    # retrieved, targets, k, recall, mrecall
    pytest.param([1, 2, 3], [[1], [2]], 3, 1, 1, id="m < k, all found"),
    pytest.param([1, 9, 8], [[1], [2]], 3, 1 / 2, 0, id="m < k, one missing"),
    pytest.param([2, 1], [[1], [2]], 2, 1, 1, id="m = k, all found"),
    pytest.param([2, 9], [[1], [2]], 2, 1 / 2, 0, id="m = k, one missing"),
    pytest.param([1, 2], [[1], [2], [3]], 2, 2 / 3, 1, id="k < m, every place finds one"),
    pytest.param([1, 9], [[1], [2], [3]], 2, 1 / 3, 0, id="k < m, one place wasted"),
    pytest.param([9, 1], [[1]], 1, 0, 0, id="found only behind k"),
    pytest.param([5, 7], [[4, 5, 6], [7, 8]], 2, 1, 1, id="any document of a cluster counts"),
    pytest.param([4, 5], [[4, 5, 6], [7, 8]], 2, 1 / 2, 0, id="a cluster counts once"),
    pytest.param([5, 9], [[5, 6], [5, 7]], 2, 1, 1, id="one document in two clusters finds both"),
    pytest.param([5, 9], [[5], [5], [7]], 2, 2 / 3, 1, id="two targets through one document reach k"),
    pytest.param([1, 1, 1], [[1], [2], [3], [4]], 3, 1 / 4, 0, id="a document retrieved twice counts once"),
    pytest.param([0, -1, -1], [[0], [2]], 3, 1 / 2, 0, id="padding finds nothing"),
    pytest.param([-1, -1], [[0]], 2, 0, 0, id="padding alone"),
]


@pytest.mark.parametrize(("retrieved", "targets", "k", "expected_recall", "expected_mrecall"), TABLE)
def test_worked_example(retrieved, targets, k, expected_recall, expected_mrecall):
    # Beside a query with more targets and larger clusters, whose padding must not leak into this one.
    rows = np.array([retrieved, [0] * len(retrieved)])
    both = [targets, [[90 + t, 99] for t in range(6)]]
    np.testing.assert_allclose(recall_at_k(rows, both, k), [expected_recall, 0])
    np.testing.assert_array_equal(mrecall_at_k(rows, both, k), [expected_mrecall, 0])


def paper_metrics(retrieved, targets, k):
    """Paper §2, word by word, for one query."""
    top = {row for row in retrieved[:k] if row != -1}
    found = sum(any(document in top for document in cluster) for cluster in targets)
    wanted = k if k < len(targets) else len(targets)
    return found / len(targets), float(found >= wanted)


@pytest.mark.parametrize("block", [1, 300, 2**24])
def test_random_runs_agree_with_a_loop_written_from_the_paper(block, monkeypatch):
    monkeypatch.setattr(recall, "BLOCK_VALUES", block)
    generator = np.random.default_rng(0)
    rows = generator.integers(-1, 15, size=(200, 12))
    targets = [
        [generator.integers(0, 15, generator.integers(1, 4)).tolist() for _ in range(generator.integers(1, 9))]
        for _ in rows
    ]
    means = []
    for k in (1, 3, 8, 12):
        expected = np.array([paper_metrics(row, clusters, k) for row, clusters in zip(rows, targets, strict=True)])
        np.testing.assert_allclose(recall_at_k(rows, targets, k), expected[:, 0])
        np.testing.assert_array_equal(mrecall_at_k(rows, targets, k), expected[:, 1])
        means.append(expected[:, 1].mean())
    assert 0 < min(means) and max(means) < 1  # the oracle sees both outcomes at every k


def test_ranks_tell_found_missed_and_absent_targets_apart():
    ranks = target_ranks(np.array([[7, 5, 5], [1, 2, 3]]), [[[5, 6], [7], [8]], [[3]]], 3)
    assert ranks.tolist() == [[1, 0, NOT_FOUND], [2, NO_TARGET, NO_TARGET]]


@pytest.mark.parametrize(
    ("retrieved", "targets", "k", "message"),
    [
        ([[1, 2]], [[[1]]], 0, "k must lie in 1..2"),
        ([[1, 2]], [[[1]]], 3, "k must lie in 1..2"),
        ([[1]], [[[1]], [[2]]], 1, "1 ranked lists for 2 queries"),
        ([[1], [1]], [[[1]], []], 1, "query number 1 has no targets"),
        ([[1]], [[[]]], 1, "query number 0 has the target"),
        ([[1]], [[[-1]]], 1, "an integer from 0"),
        ([[1]], [[["1"]]], 1, "an integer from 0"),
        ([[-3]], [[[1]]], 1, "-1 .padding. or more"),
        ([[1.0]], [[[1]]], 1, "integer rows"),
        ([1], [[[1]]], 1, "integer rows"),
    ],
)
def test_wrong_input_is_refused(retrieved, targets, k, message):
    with pytest.raises(ValueError, match=message):
        mrecall_at_k(np.array(retrieved), targets, k)


def test_an_empty_run_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        recall_at_k(np.empty((0, 10), dtype=np.int64), [], 10)
