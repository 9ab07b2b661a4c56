"""Random perturbations: the first vector is the question's own, the others lie where the scale says."""

from __future__ import annotations

import numpy as np
import pytest

from amer.baselines.perturbation import perturb


def unit(*shape: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_first_vector_is_unchanged_and_the_others_are_new_unit_vectors():
    vectors = unit(50, 16)
    perturbed = perturb(vectors, 4, 0.5, seed=1)
    assert perturbed.shape == (50, 4, 16) and perturbed.dtype == np.float32
    np.testing.assert_array_equal(perturbed[:, 0], vectors)
    np.testing.assert_allclose(np.linalg.norm(perturbed, axis=2), 1, atol=1e-6)
    cosines = np.einsum("qid,qjd->qij", perturbed, perturbed)
    assert cosines[:, ~np.eye(4, dtype=bool)].max() < 0.999


def test_the_scale_is_in_lengths_of_the_vector():
    vectors = unit(200, 1024)  # in many dimensions a random direction is nearly orthogonal to the vector
    cosines = np.einsum("qd,qmd->qm", vectors, perturb(vectors, 3, 0.5, seed=0))[:, 1:]
    np.testing.assert_allclose(cosines, 1 / np.sqrt(1 + 0.5**2), atol=0.06)
    np.testing.assert_allclose(perturb(vectors, 3, 0.0, seed=0), np.repeat(vectors[:, None], 3, axis=1), atol=1e-6)


def test_the_directions_follow_from_the_seed():
    vectors = unit(5, 8)
    np.testing.assert_array_equal(perturb(vectors, 3, 1.0, seed=1), perturb(vectors, 3, 1.0, seed=1))
    assert not np.allclose(perturb(vectors, 3, 1.0, seed=1)[:, 1:], perturb(vectors, 3, 1.0, seed=2)[:, 1:])
    np.testing.assert_array_equal(perturb(vectors, 1, 1.0, seed=1), vectors[:, None])


@pytest.mark.parametrize(
    "vectors, m, scale, message",
    [
        (unit(2, 3, 4), 2, 1.0, r"\(q, dim\)"),
        (unit(2, 4) * 3, 2, 1.0, "length"),
        (np.full((2, 4), np.nan), 2, 1.0, "finite"),
        (unit(2, 4), 0, 1.0, "m must"),
        (unit(2, 4), 2, -1.0, "scale"),
        (unit(2, 4), 2, np.nan, "scale"),
    ],
)
def test_bad_input_is_refused(vectors, m, scale, message):
    with pytest.raises(ValueError, match=message):
        perturb(vectors, m, scale, seed=0)
