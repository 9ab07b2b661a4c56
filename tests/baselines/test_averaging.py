"""The averaged query vector: the normalised mean, and what MaxSim over one vector a document comes to."""

from __future__ import annotations

import numpy as np
import pytest

from amer.baselines.averaging import average


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_mean_has_unit_length():
    vectors = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]], dtype=np.float32)
    averaged = average(vectors)
    assert averaged.shape == (2, 1, 3) and averaged.dtype == np.float32
    np.testing.assert_allclose(averaged[:, 0], [[np.sqrt(0.5), np.sqrt(0.5), 0], [0, 0, 1]], atol=1e-6)


def test_maxsim_with_one_vector_a_document_ranks_as_the_average_does():
    rng = np.random.default_rng(0)
    queries, documents = unit(rng, 50, 5, 16), unit(rng, 200, 16)
    of_many_vectors = documents[:, None]  # (documents, vectors of each = 1, dim)
    maxsim = np.einsum("qid,nvd->qniv", queries, of_many_vectors).max(axis=3).sum(axis=2)
    averaged = average(queries)[:, 0] @ documents.T
    lengths = np.linalg.norm(queries.sum(axis=1), axis=1, keepdims=True)
    np.testing.assert_allclose(maxsim, averaged * lengths, atol=1e-5)
    np.testing.assert_array_equal(np.argsort(-maxsim, axis=1)[:, :10], np.argsort(-averaged, axis=1)[:, :10])


@pytest.mark.parametrize("second", [[-1, 0, 0], [-1, 1e-7, 0], [np.nan, 0, 0], [np.inf, 0, 0]])
def test_vectors_that_cancel_out_or_are_not_finite_are_refused(second):
    good = [[0, 1, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="question number 1"):
        average(np.array([good, [[1, 0, 0], second]], dtype=np.float32))


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(q, m, dim\)"):
        average(np.ones(shape))
