from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from amer.evaluation import diversity, low_similarity_third, similarity_quartiles, target_similarity
from amer.evaluation.diversity import target_distances


def store_of(vectors: np.ndarray) -> SimpleNamespace:
    """What `target_similarity` asks of a document store."""
    return SimpleNamespace(vectors=lambda rows: vectors[np.asarray(rows)].astype(np.float32))


def test_worked_example():
    store = store_of(np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]]))
    # The pairs of (0, 1, 2) have cosines 0, 0.6 and 0.8; documents behind the first of a cluster do not count.
    targets = [[[0, 3], [1], [2, 3]], [[0], [3]], [[2]], [[2], [2, 0]]]
    np.testing.assert_allclose(target_similarity(targets, store), [1.4 / 3, -1, 1, 1], atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 4_096])
def test_agrees_with_a_loop_over_pairs(block, monkeypatch):
    monkeypatch.setattr(diversity, "BLOCK_QUERIES", block)
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((30, 5)).astype(np.float16)  # not of unit length: the cosine is meant
    targets = [[[row] for row in generator.choice(30, generator.integers(2, 7), replace=False)] for _ in range(20)]
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    expected = [
        np.mean([unit[a] @ unit[b] for i, (a,) in enumerate(clusters) for (b,) in clusters[:i]])
        for clusters in targets
    ]
    np.testing.assert_allclose(target_similarity(targets, store_of(vectors)), expected, atol=1e-6)
    distances = target_distances(targets, store_of(vectors))
    np.testing.assert_allclose(distances["cosine"], 1 - np.array(expected), atol=1e-6)
    expected = [
        np.mean([np.linalg.norm(unit[a] - unit[b]) for i, (a,) in enumerate(clusters) for (b,) in clusters[:i]])
        for clusters in targets
    ]
    np.testing.assert_allclose(distances["euclidean"], expected, atol=1e-6)


def test_worked_distances():
    store = store_of(np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]]))
    # In the second query the targets lie opposite each other, the third has only one, the fourth the same twice.
    distances = target_distances([[[0, 3], [1], [2, 3]], [[0], [3]], [[2]], [[2], [2, 0]]], store)
    np.testing.assert_allclose(distances["euclidean"], [(2**0.5 + 0.8**0.5 + 0.4**0.5) / 3, 2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(distances["cosine"], [1.6 / 3, 2, 0, 0], atol=1e-6)
    assert distances["euclidean"][3] == distances["cosine"][3] == 0


@pytest.mark.parametrize("measure", [target_similarity, target_distances])
@pytest.mark.parametrize("targets", [[], [[[0]], []], [[[]]]])
def test_missing_targets_are_refused(measure, targets):
    with pytest.raises(ValueError, match=r"at least one|one document"):
        measure(targets, store_of(np.eye(2)))


def test_the_low_similarity_third_holds_the_least_similar():
    similarity = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.7, 0.3])
    assert np.flatnonzero(low_similarity_third(similarity)).tolist() == [1, 3, 6]
    assert low_similarity_third(np.zeros(9)).sum() == 3  # ties do not swell it


def test_quartiles_run_from_diverse_to_similar_and_are_even():
    similarity = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.7, 0.3, 0.4])
    assert similarity_quartiles(similarity).tolist() == [3, 0, 2, 0, 3, 2, 1, 1]
    assert np.bincount(similarity_quartiles(np.arange(10))).tolist() == [3, 2, 3, 2]


@pytest.mark.parametrize("similarity", [[], [0.1, np.nan], [[0.1]]])
def test_wrong_similarity_is_refused(similarity):
    with pytest.raises(ValueError, match="finite"):
        similarity_quartiles(np.array(similarity))
