"""Scheduled sampling follows the paper's schedule and really feeds what it says."""

from __future__ import annotations

import pytest

from amer.trainer.sampling import prediction_probability


def test_the_linear_schedule_rises_with_the_steps_and_stops_at_four_fifths():
    steps = [0, 10, 50, 80, 90, 100]
    assert [prediction_probability("linear", step, 100) for step in steps] == [0, 0.1, 0.5, 0.8, 0.8, 0.8]


def test_the_constant_schedules():
    assert {prediction_probability("always_predicted", step, 9) for step in range(10)} == {1.0}
    assert {prediction_probability("teacher_forcing", step, 9) for step in range(10)} == {0.0}


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"linear, always_predicted, teacher_forcing; got 'cosine'"):
        prediction_probability("cosine", 0, 1)
