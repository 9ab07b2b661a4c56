"""Filters in the words of Qdrant."""

from __future__ import annotations

from typing import Any

from amer.corpus.filters import Filter
from amer.extras import needs_extra

with needs_extra("qdrant", "QdrantIndex"):
    from qdrant_client import models

RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
EXACT_INTEGERS = range(-(2**53) + 1, 2**53)  # Qdrant compares the order of numbers as float64


def translated(filter: Filter) -> models.Filter:
    """A filter in the words of Qdrant.

    Raises:
        ValueError: it compares the order of strings, or of integers beyond 2**53.
    """
    return _translated(filter.tree, filter.expression)


def _translated(tree: tuple[Any, ...], expression: str) -> models.Filter:
    operator, *operands = tree
    if operator == "not":
        return models.Filter(must_not=[_translated(operands[0], expression)])
    if operator in ("and", "or"):
        parts: list[Any] = [_translated(part, expression) for part in operands[0]]
        return models.Filter(must=parts) if operator == "and" else models.Filter(should=parts)
    field, value = operands
    if operator in ("in", "not in"):
        listed: list[Any] = [_equal(field, one) for one in value]
        found = models.Filter(should=listed or [models.HasIdCondition(has_id=[])])  # an empty list finds nothing
        return found if operator == "in" else models.Filter(must_not=[found])
    if operator in ("==", "!="):
        same = _equal(field, value)
        return models.Filter(must=[same]) if operator == "==" else models.Filter(must_not=[same])
    if isinstance(value, str) or (isinstance(value, int) and value not in EXACT_INTEGERS):
        raise ValueError(
            f"filter {expression[:200]!r}: Qdrant cannot compare {field} {operator} {value!r:.60}, only the order of "
            "numbers up to 2**53: leave that out, or search with another index"
        )
    return models.Filter(must=[models.FieldCondition(key=field, range=models.Range(**{RANGES[operator]: value}))])


def _equal(field: str, value: Any) -> models.FieldCondition:
    if isinstance(value, float):  # Qdrant matches no fractions, but a range can hold a single one
        return models.FieldCondition(key=field, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))
