"""Filters of frameworks, in the words of `amer.corpus.filters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


def comparison(field: str, operator: str, value: Any) -> str:
    """One comparison of a field with a constant, or with a list of them.

    Raises:
        ValueError: another operator, no name of a field, or a value that is neither text, number nor boolean.
    """
    if operator not in COMPARISONS:
        raise ValueError(f"filters compare by {', '.join(COMPARISONS)}, got {operator!r} for the field {field!r}")
    if not field.isidentifier():
        raise ValueError(f"filters compare fields whose names are letters, digits and underscores, got {field!r}")
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if not isinstance(one, str | int | float):
            raise ValueError(f"{field} is compared with {one!r:.60}: filters compare with text, numbers, booleans")
    return f"{field} {operator} {list(value) if value is values else value!r}"


def joined(operator: str, conditions: Sequence[str]) -> str:
    """Several conditions as one.

    Args:
        operator: `and` or `or`.
        conditions: at least one.

    Raises:
        ValueError: another operator, or no condition.
    """
    if operator not in ("and", "or"):
        raise ValueError(f"conditions are joined by and, or, not, got {operator!r}")
    if not conditions:
        raise ValueError(f"a filter joins no conditions by {operator!r}: give at least one, or no filter")
    return "(" + f") {operator} (".join(conditions) + ")"
