"""Vectors on a plane."""

from __future__ import annotations

import numpy as np
import pytest

from amer.search.plane import plane


def test_distances_in_a_plane_stay_whatever_space_it_lies_in():
    draw = np.random.default_rng(0)
    flat = draw.normal(size=(50, 2))
    turned, _ = np.linalg.qr(draw.normal(size=(16, 16)))
    found = plane(flat @ turned[:2] + draw.normal(size=16))
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    shown = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert np.abs(found).max() == pytest.approx(1)
    np.testing.assert_allclose(shown * (apart.max() / shown.max()), apart, atol=1e-9)


def test_the_first_axis_is_that_of_the_greatest_spread_and_the_picture_is_never_mirrored():
    vectors = np.random.default_rng(1).normal(size=(40, 6)) * [1, 9, 1, 3, 1, 1]
    found = plane(vectors)
    assert abs(np.corrcoef(found[:, 0], vectors[:, 1])[0, 1]) > 0.95
    np.testing.assert_allclose(plane(vectors[::-1])[::-1], found, atol=1e-9)
    np.testing.assert_allclose(plane(-vectors).max(axis=0) > 0, True)


@pytest.mark.parametrize("vectors", [np.zeros((1, 4)), np.ones((3, 4)), np.ones((2, 1))])
def test_vectors_that_are_all_alike_lie_in_the_middle(vectors):
    np.testing.assert_array_equal(plane(vectors), np.zeros((len(vectors), 2)))


def test_one_dimension_is_a_line():
    np.testing.assert_allclose(plane(np.array([[0.0], [1.0], [2.0]]))[:, 1], 0)
