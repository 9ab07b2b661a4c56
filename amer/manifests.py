"""JSON files that say what lies beside them: store.json, index.json and the like."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from amer.files import read_json

Kind = type | tuple[type, ...]
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number", bool: "a boolean"}
NUMBER = (int, float)


def read_manifest(
    file: str | os.PathLike[str], required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None
) -> dict[str, Any]:
    """Read a JSON object, and check the types of its fields.

    Args:
        file: the manifest.
        required: field -> its type, or several: `str`, `int`, `float`, `bool`, `list`, `dict` or `type(None)`.
        optional: the same of fields that need not be there; any further field may be anything.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, or a field is missing or of another type; names file and field.
    """
    try:
        value = read_json(file)
    except (RecursionError, ValueError) as error:  # nested too deep; a number of too many digits
        if str(file) in str(error):
            raise
        raise ValueError(f"{file} is not a JSON file of ours ({error}): restore it") from error
    check_fields(value, required, str(file), optional)
    return dict(value)


def check_fields(
    value: Any, required: Mapping[str, Kind], where: str, optional: Mapping[str, Kind] | None = None
) -> None:
    """Raise ValueError if a value from JSON is no object with these fields (see `read_manifest`)."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a JSON object, not {_shown(value)}")
    missing = [name for name in required if name not in value]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}: restore it, or make it again")
    for name, kind in {**required, **(optional or {})}.items():
        if name in value and not _fits(value[name], kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(NAMES.get(one, "null") for one in kinds)
            raise ValueError(f"{where}: {name} must be {wanted}, not {_shown(value[name])}: restore it")


def _fits(value: Any, kind: Kind) -> bool:
    """Whether it is of the type; True and False are no numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
