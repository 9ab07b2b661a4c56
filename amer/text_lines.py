"""Records of text files, read one by one; every error names the file and the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amer.files import parse_json


class Place(NamedTuple):
    """Where a record stands.

    Attributes:
        file: the file, or the name of a data set.
        unit: what is counted there: "line", "row" or "record".
        number: from 1.
    """

    file: Path
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


def read_lines(file: Path) -> Iterator[tuple[Place, str]]:
    """Every line, with its line break; without the byte-order mark that some programs put at the start.

    Args:
        file: UTF-8; gzipped if its name ends in `.gz`, in any case.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: a gzipped file is cut short or damaged.
        ValueError: a line is not UTF-8.
    """
    place = Place(file, "line", 0)
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                place = Place(file, "line", number)
                yield place, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(f"{place}: the file is cut short or damaged behind it ({error}): fetch it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8 ({error}): save the file as UTF-8") from error


def read_objects(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every line of a JSONL file as a JSON object, blank lines aside; raises as `read_lines` and `parse_object`."""
    for place, line in read_lines(file):
        if line.strip():
            yield place, parse_object(line, place)


def parse_object(line: str, place: Place) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the line is anything else, or spells half a character ("\\ud83d"), which no file can hold.
    """
    try:
        value = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}): {line.strip()[:60]!r}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{place} must hold a JSON object, not {type(value).__name__}: {line.strip()[:60]!r}")
    return value


def id_text(value: Any) -> str:
    """An id as text: "7" and the whole number 7 are one id, "007" is another.

    Raises:
        TypeError: it is neither a text nor a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"the id {value!r} is neither a text nor a whole number")
    return str(value)


def checked_ending(file: Path, endings: Sequence[str]) -> str:
    """The ending of a file's name, in lower case.

    Raises:
        ValueError: it is none of `endings`.
    """
    for ending in endings:
        if file.name.lower().endswith(ending):
            return ending
    raise ValueError(f"{file} is none of {', '.join(endings)}: save it as one of them, and call it so")


def list_of_texts(value: Any) -> list[str]:
    """The value, if it is a list of texts.

    Raises:
        TypeError: it is anything else; a single text, which would be cut into its letters, too.
    """
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{value!r} is not a list of texts")
    return value
