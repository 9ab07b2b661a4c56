"""Scheduled sampling: how often the decoder reads its own prediction and not the gold target (paper §4.1)."""

from __future__ import annotations

SCHEDULES = ("linear", "always_predicted", "teacher_forcing")


def prediction_probability(schedule: str, step: int, total_steps: int) -> float:
    """Probability p of feeding back the prediction after `step` of `total_steps` optimiser steps.

    "linear" is the paper's schedule, `min(0.8, step / total_steps)`. "always_predicted" (paper §6.4) is p = 1, and
    "teacher_forcing" is p = 0.

    Raises:
        ValueError: An unknown schedule.
    """
    if schedule == "linear":
        return min(0.8, step / max(total_steps, 1))
    if schedule == "always_predicted":
        return 1.0
    if schedule == "teacher_forcing":
        return 0.0
    raise ValueError(f"scheduled_sampling must be one of {', '.join(SCHEDULES)}; got {schedule!r}.")
