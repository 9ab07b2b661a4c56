"""Read records of text files one by one. Every error names the file and the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amer.files import parse_json


class Place(NamedTuple):
    """Position of a record.

    Attributes:
        file: The file, or the name of a data set.
        unit: Unit of the number: "line", "row" or "record".
        number: Number of the record, from 1.
    """

    file: Path
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


def read_lines(file: Path) -> Iterator[tuple[Place, str]]:
    """Yield every line with its line break, without a byte-order mark at the start of the file.

    Args:
        file: A UTF-8 file; gzipped if its name ends in `.gz` (in upper or lower case).

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: A gzipped file is truncated or damaged.
        ValueError: A line is not UTF-8.
    """
    place = Place(file, "line", 0)
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                place = Place(file, "line", number)
                yield place, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(f"{place}: the file is cut short or damaged after it ({error}): download it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8 ({error}): save the file as UTF-8") from error


def read_objects(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the JSON objects of a JSONL file, without blank lines. Errors as in `read_lines` and `parse_object`."""
    for place, line in read_lines(file):
        if line.strip():
            yield place, parse_object(line, place)


def parse_object(line: str, place: Place) -> dict[str, Any]:
    """Parse a line as a JSON object.

    Raises:
        ValueError: The line is not a JSON object, or holds a lone surrogate ("\\ud83d"), which UTF-8 cannot encode.
    """
    try:
        value = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}): {line.strip()[:60]!r}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{place} must hold a JSON object, not {type(value).__name__}: {line.strip()[:60]!r}")
    return value


def id_text(value: Any) -> str:
    """Return an ID as a string: "7" and the integer 7 are the same ID, "007" is another.

    Raises:
        TypeError: The ID is neither a string nor an integer.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"the id {value!r} is neither a text nor a whole number")
    return str(value)


def checked_ending(file: Path, endings: Sequence[str]) -> str:
    """Return the ending of a file's name, in lower case.

    Raises:
        ValueError: The ending is not one of `endings`.
    """
    for ending in endings:
        if file.name.lower().endswith(ending):
            return ending
    raise ValueError(f"{file} must end in one of {', '.join(endings)}: save it in one of these formats")


def list_of_texts(value: Any) -> list[str]:
    """Return the value if it is a list of strings.

    Raises:
        TypeError: The value is anything else, including a single string, which would be split into its characters.
    """
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{value!r} is not a list of texts")
    return value
