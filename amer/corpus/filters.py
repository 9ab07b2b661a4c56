"""Filters: conditions on the metadata of the documents that a search may find. All indexes use the same syntax.

The metadata are the columns of a store's documents other than `id`, `title` and `text`: strings, numbers and booleans.
A filter compares them with constants. Integer fields need integer constants.

    year >= 1990 and language in ["en", "de"]
    1990 <= year < 2000 and not (kind == "list" or stub == True)

The comparisons are `==`, `!=`, `<`, `<=`, `>`, `>=`, and `in` or `not in` a list. Strings are ordered by code point.
Combine comparisons with `and`, `or`, `not` and parentheses, with the same precedence as in Python. Put strings in
single or double quotes. Milvus receives a translated filter; torch and FAISS receive the matching rows.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 10_000  # characters
DEEPEST = 50  # nested parentheses
INT64 = range(-(2**63) + 1, 2**63)  # a Milvus server cannot parse -(2**63)
UNSPEAKABLE = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff]")  # control characters and surrogates
COMPARISONS: dict[type[ast.cmpop], tuple[str, Any]] = {
    ast.Eq: ("==", pc.equal),
    ast.NotEq: ("!=", pc.not_equal),
    ast.Lt: ("<", pc.less),
    ast.LtE: ("<=", pc.less_equal),
    ast.Gt: (">", pc.greater),
    ast.GtE: (">=", pc.greater_equal),
}
MIRRORED = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}
JOINTS: dict[type[ast.boolop], tuple[str, Any]] = {ast.And: ("and", np.logical_and), ast.Or: ("or", np.logical_or)}


class Filter:
    """A parsed and checked filter.

    Attributes:
        expression: The filter as given.
        fields: Names of the metadata that it reads.
        tree: `(joint, parts)`, `("not", part)` or `(comparison, field, constant or list)`, for indexes to translate.
    """

    def __init__(self, expression: str, schema: Mapping[str, pa.DataType]) -> None:
        """Parse and check an expression.

        Args:
            expression: A filter; see the module for the syntax.
            schema: Name and type of every field: `DocumentStore.metadata`.

        Raises:
            ValueError: The syntax is wrong, a field does not exist, or a constant has another type than its field.
        """
        self.expression = expression
        self.fields: set[str] = set()
        self._schema = schema
        self._source, tree = _parsed(expression)
        self.tree = self._read(tree)

    def matches(self, documents: pa.RecordBatch) -> np.ndarray:
        """Return which documents match: `(n,)` bool. The batch must have the columns `fields`."""
        return self._evaluated(self.tree, documents)

    def for_milvus(self) -> str:
        """Return the filter in Milvus' syntax."""
        return _written(self.tree)

    def _read(self, node: ast.expr, depth: int = 0) -> tuple[Any, ...]:
        """Build the tree of `(joint, parts)`, `("not", part)` and `(comparison, field, constant or list)`."""
        if depth > DEEPEST:
            raise ValueError(f"filter {self.expression[:200]!r} is nested more than {DEEPEST} deep: simplify it")
        if isinstance(node, ast.BoolOp):
            return (JOINTS[type(node.op)][0], [self._read(value, depth + 1) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ("not", self._read(node.operand, depth + 1))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [self._comparison(*part) for part in zip(sides, node.ops, sides[1:], strict=False)]
            return parts[0] if len(parts) == 1 else ("and", parts)
        raise self._error(f"{self._words(node)} is not a comparison")

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> tuple[str, str, Any]:
        kind = type(operator)
        if isinstance(right, ast.Name) and kind in MIRRORED:  # 1990 <= year
            left, kind, right = right, MIRRORED[kind], left
        if not isinstance(left, ast.Name):
            raise self._error(f"{self._words(left)} is not the name of a field")
        field = left.id
        if field not in self._schema:
            raise self._error(f"there is no field {field!r}")
        self.fields.add(field)
        if kind in COMPARISONS:
            value = self._constant(field, right)
            if isinstance(value, bool) and kind not in (ast.Eq, ast.NotEq):
                raise self._error(f"{field} is a boolean, compare it with == or != only")
            return (COMPARISONS[kind][0], field, value)
        if kind in (ast.In, ast.NotIn) and isinstance(right, ast.List | ast.Tuple):
            values = [self._constant(field, value) for value in right.elts]
            return ("in" if kind is ast.In else "not in", field, values)
        raise self._error(f"the comparison of {field} is not supported")

    def _constant(self, field: str, node: ast.expr) -> Any:
        """Return a constant, after checking that it can be compared with the field."""
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise self._error(f"{self._words(node)} is not a constant") from None
        if not _comparable(value, self._schema[field]):
            raise self._error(f"{field} is of type {self._schema[field]}, it cannot be compared with {value!r:.60}")
        return float(value) if pa.types.is_floating(self._schema[field]) else value

    def _evaluated(self, tree: tuple[Any, ...], documents: pa.RecordBatch) -> np.ndarray:
        operator, *operands = tree
        if operator == "not":
            return ~self._evaluated(operands[0], documents)
        for word, join in JOINTS.values():
            if operator == word:
                return join.reduce([self._evaluated(part, documents) for part in operands[0]])
        field, value = operands
        column = documents.column(field)
        if operator in ("in", "not in"):
            found = np.zeros(len(column), dtype=bool)
            if value:
                found = pc.is_in(column, value_set=pa.array(value, type=column.type)).to_numpy(zero_copy_only=False)
            return found if operator == "in" else ~found
        compare = next(function for word, function in COMPARISONS.values() if word == operator)
        return compare(column, pa.scalar(value)).to_numpy(zero_copy_only=False)

    def _words(self, node: ast.expr) -> str:
        """Return the source text of a part of the filter."""
        return repr((ast.get_source_segment(self._source, node) or "")[:60])

    def _error(self, what: str) -> ValueError:
        fields = ", ".join(f"{name} ({kind})" for name, kind in self._schema.items()) or "none, these have no metadata"
        return ValueError(
            f"filter {self.expression[:200]!r}: {what}; write comparisons such as year >= 1990 or language in "
            f'["en", "de"], joined by and, or, not; fields of these documents: {fields}'
        )


def _parsed(expression: str) -> tuple[str, ast.expr]:
    """Return the stripped expression and its syntax tree."""
    if not isinstance(expression, str) or not expression.strip() or len(expression) > LONGEST:
        raise ValueError(f"a filter is a string of 1 to {LONGEST} characters, got {str(expression)[:200]!r}")
    try:
        return expression.strip(), ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"filter {expression[:200]!r} cannot be read ({error}); see amer.corpus.filters") from None


def _comparable(value: Any, kind: pa.DataType) -> bool:
    """Return whether all engines compare the constant with the field in the same way."""
    if pa.types.is_boolean(kind) or isinstance(value, bool):
        return pa.types.is_boolean(kind) and isinstance(value, bool)
    if pa.types.is_string(kind):
        return isinstance(value, str) and not UNSPEAKABLE.search(value)
    if pa.types.is_integer(kind):
        return isinstance(value, int) and value in INT64
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _written(tree: tuple[Any, ...]) -> str:
    operator, *operands = tree
    if operator == "not":
        return f"not ({_written(operands[0])})"
    if operator in ("and", "or"):
        return "(" + f") {operator} (".join(_written(part) for part in operands[0]) + ")"
    field, value = operands
    return f"{field} {operator} {json.dumps(value, ensure_ascii=False)}"  # Milvus has JSON literals
