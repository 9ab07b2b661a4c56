"""Translate filters of frameworks into the syntax of `amer.corpus.filters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


def comparison(field: str, operator: str, value: Any) -> str:
    """Write a comparison of a field with a constant or a list of constants.

    Raises:
        ValueError: The operator is unknown, the field's name is invalid, or a value is not a string, number or
            boolean.
    """
    if operator not in COMPARISONS:
        raise ValueError(
            f"a filter's operator must be one of {', '.join(COMPARISONS)}, got {operator!r} for the field {field!r}"
        )
    if not field.isidentifier():
        raise ValueError(f"the name of a field must consist of letters, digits and underscores, got {field!r}")
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if not isinstance(one, str | int | float):
            raise ValueError(f"{field} is compared with {one!r:.60}: give a string, a number or a boolean")
    return f"{field} {operator} {list(value) if value is values else value!r}"


def joined(operator: str, conditions: Sequence[str]) -> str:
    """Join several conditions into one.

    Args:
        operator: `and` or `or`.
        conditions: At least one condition.

    Raises:
        ValueError: The operator is unknown, or there is no condition.
    """
    if operator not in ("and", "or"):
        raise ValueError(f"conditions must be joined by and, or, not, got {operator!r}")
    if not conditions:
        raise ValueError(f"a filter has {operator!r} without conditions: give at least one condition, or no filter")
    return "(" + f") {operator} (".join(conditions) + ")"
