"""Allowed values of options. Check them early, not at their first use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers from `least` to `most`.

    Attributes:
        least: Lower bound.
        most: Upper bound.
        above: The lower bound itself is not allowed.
        below: The upper bound itself is not allowed.
    """

    least: float
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        """Return whether a number lies in the range. NaN and infinities never do."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        enough = value > self.least if self.above else value >= self.least
        return enough and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        """Return the words after "must" in a message."""
        if math.isinf(self.most) and self.least == 0:
            return "be positive, and finite" if self.above else "not be negative, and finite"
        least = f"be greater than {self.least:,}" if self.above else f"be at least {self.least:,}"
        if math.isinf(self.most):
            return least
        return f"{least} and {'less than' if self.below else 'at most'} {self.most:,}"


def check_ranges(values: Any, ranges: Mapping[str, Range]) -> None:
    """Check that options lie in their ranges. None means that an option is not set.

    Args:
        values: Object with the options as attributes: numbers, or lists of numbers.
        ranges: Maps the name of an option to its range.

    Raises:
        ValueError: An option is outside its range. The message names option, value and range.
    """
    for name, allowed in ranges.items():
        value = getattr(values, name, None)
        if isinstance(value, list) and not value:
            raise ValueError(f"{name} is empty: give at least one number.")
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number not in allowed:
                raise ValueError(f"{name} must {allowed}; got {number!r}.")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ValueError if an option is not one of its choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}.")
