from __future__ import annotations

import numpy as np
import pytest

from amer.evaluation import paired_bootstrap, significance


def test_a_known_effect_is_significant_and_inside_its_interval():
    generator = np.random.default_rng(0)
    base = generator.random(400)
    result = paired_bootstrap(base + 0.1 + 0.2 * generator.standard_normal(400), base, resamples=2_000)
    assert result.p_value == 1 / 2_001  # the smallest there is
    assert result.low < 0.1 < result.high
    assert result.high - result.low == pytest.approx(2 * 1.96 * 0.2 / 20, rel=0.15)


def test_without_an_effect_p_is_uniform():
    generator = np.random.default_rng(1)
    p = [paired_bootstrap(*generator.random((2, 60)), resamples=200, seed=draw).p_value for draw in range(300)]
    shares = np.histogram(p, bins=4, range=(0, 1))[0] / len(p)
    np.testing.assert_allclose(shares, 0.25, atol=0.09)
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.11


def test_resampling_counts_of_distinct_values_is_resampling_queries():
    a, b = np.random.default_rng(2).integers(0, 2, size=(2, 80)).astype(float)
    result = paired_bootstrap(a, b, resamples=20_000)
    differences = a - b
    draws = np.random.default_rng(3).integers(0, 80, size=(20_000, 80))
    means = differences[draws].mean(axis=1)
    extreme = np.abs(means - differences.mean()) >= abs(differences.mean()) - 1e-12
    assert result.difference == differences.mean()
    assert result.p_value == pytest.approx(extreme.mean(), abs=0.02)
    np.testing.assert_allclose([result.low, result.high], np.quantile(means, [0.025, 0.975]), atol=0.013)


def test_equal_systems_have_p_one():
    values = np.random.default_rng(0).random(50)
    assert paired_bootstrap(values, values, resamples=100) == (0, 0, 0, 1)


def test_swapping_the_systems_changes_the_sign_alone():
    a, b = np.random.default_rng(0).random((2, 70)).round(1)
    forth, back = paired_bootstrap(a, b, resamples=500), paired_bootstrap(b, a, resamples=500)
    assert forth.p_value == back.p_value
    np.testing.assert_allclose(forth[:3], [-back.difference, -back.high, -back.low], atol=1e-15)


def test_the_seed_decides_and_blocks_do_not_matter_to_the_outcome(monkeypatch):
    a, b = np.random.default_rng(0).random((2, 70))
    whole = paired_bootstrap(a, b, resamples=300)
    assert paired_bootstrap(a, b, resamples=300) == whole
    assert paired_bootstrap(a, b, resamples=300, seed=1) != whole
    monkeypatch.setattr(significance, "BLOCK_VALUES", 70 * 7)
    np.testing.assert_allclose(paired_bootstrap(a, b, resamples=300), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "resamples", "message"),
    [
        ([1, 2], [1, 2, 3], 10, "same shape"),
        ([1], [1], 10, "q >= 2"),
        ([[1, 2]], [[1, 2]], 10, "same shape"),
        ([1, np.nan], [1, 2], 10, "NaN"),
        ([1, 2], [1, 2], 0, "resamples"),
    ],
)
def test_wrong_input_is_refused(a, b, resamples, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(a, b, resamples)
