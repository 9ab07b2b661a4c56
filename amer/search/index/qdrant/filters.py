"""Translate filters into Qdrant's form."""

from __future__ import annotations

from typing import Any

from amer.corpus.filters import Filter
from amer.extras import needs_extra

with needs_extra("qdrant", "QdrantIndex"):
    from qdrant_client import models

RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
EXACT_INTEGERS = range(-(2**53) + 1, 2**53)  # Qdrant orders numbers as float64


def translated(filter: Filter) -> models.Filter:
    """Translate a filter into Qdrant's form.

    Raises:
        ValueError: The filter orders strings, or integers beyond 2**53.
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
            f"filter {expression[:200]!r}: Qdrant cannot compare {field} {operator} {value!r:.60}. It orders only "
            "numbers up to 2**53: drop this comparison, or search with another index"
        )
    return models.Filter(must=[models.FieldCondition(key=field, range=models.Range(**{RANGES[operator]: value}))])


def _equal(field: str, value: Any) -> models.FieldCondition:
    if isinstance(value, float):  # Qdrant cannot match a float, so use a range of one value
        return models.FieldCondition(key=field, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))
