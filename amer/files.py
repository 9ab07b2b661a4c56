"""Files: written whole or not at all, and read so that every error names its file.

There is one reader a format. What a library raises of a damaged file becomes an `OSError` with its path; what is wrong
in a manifest, a `ValueError` with path and field.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tokenize
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

Manifest = TypeVar("Manifest")
Count = Annotated[int, Field(ge=1, le=2**48)]
"""Of documents, values, bytes: what a manifest may say of them."""
# What pyarrow and NumPy raise of damaged files, among the errors of the operating system and of what is not UTF-8.
UNREADABLE = (
    OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, TypeError, tokenize.TokenError,
    pa.ArrowException,
)  # fmt: skip


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a whole file or nothing.

    Args:
        path: the file to create or replace; its folder is created when missing.

    Yields:
        A temporary path in the same folder. The body writes the file there; on success it is synced to disk and
        renamed to `path`, on any failure (also an interrupt) it is removed.

    Raises:
        OSError: the disk is full, for example; names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, Path.touch) as temporary:
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        except OSError as error:
            if error.filename is not None or error.errno is None:  # it has been said which file, or what else it is
                raise
            raise OSError(f"{path} could not be written, is the disk full? ({error})") from error
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a whole new directory or nothing; what a killed process has left of the same directory is removed.

    Args:
        path: the directory to create; it must not exist yet, or be empty.

    Yields:
        A temporary directory beside `path`, renamed to it on success and removed with all it holds on any failure.

    Raises:
        FileExistsError: `path` exists and is not an empty directory.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} already exists and is not empty: remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    with _temporary(path, Path.mkdir) as temporary:
        try:
            yield temporary
            for entry in (*temporary.rglob("*"), temporary):
                _sync(entry)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of a file or directory that they wrote; who is alive has locked it."""
    if not path.parent.is_dir():
        return
    name = re.compile(r"\.[0-9a-f]{32}\." + re.escape(path.name))
    for left in [entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)]:
        try:
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        except OSError:  # at work, or on a file system without locks, where nobody can know
            continue
        finally:
            os.close(descriptor)


def inside(folder: str | os.PathLike[str], name: object) -> Path:
    """The path of a file whose name was found in data: a manifest, an index, a listing. Touches no file.

    Files in the Hub's cache are links to the `blobs` of their repository, which are allowed.

    Args:
        folder: where the file must lie.
        name: relative to `folder`, with `/` between its parts.

    Raises:
        ValueError: `name` is no relative name, is not allowed on some system, or leads out of `folder`: by `..`, or by
            a symbolic link.
    """
    root = Path(folder).resolve()
    refused = ValueError(f"{name!r} is no name of a file in {folder}: it must be relative and must not lead out of it")
    if not isinstance(name, str) or "\0" in name or not PurePosixPath(name).parts:
        raise refused
    for parts in (PurePosixPath(name), PureWindowsPath(name)):
        if parts.drive or parts.root or ".." in parts.parts:
            raise refused
    path = Path(folder, name)
    try:
        real = path.resolve()
    except (OSError, RuntimeError, UnicodeError):  # links in a circle, half a surrogate pair
        raise refused from None
    snapshots = (parent for parent in (root, *root.parents) if parent.parent.name == "snapshots")
    allowed = [root, *(snapshot.parent.parent / "blobs" for snapshot in snapshots)]
    circular = any(part.is_symlink() for part in (real, *real.parents))  # Python 3.13 leaves such links as they are
    if circular or real == root or not any(real.is_relative_to(place) for place in allowed):
        raise refused
    return path


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file, with or without a byte-order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON; names the file.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is no JSON, is nested too deeply, holds a number of thousands of digits, or spells half a
            character ("\\ud83d"), which no file can hold.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


def read_manifest(path: str | os.PathLike[str], kind: type[Manifest]) -> Manifest:
    """Read a JSON file that describes what lies beside it; fields that `kind` does not know are kept.

    Args:
        path: the file.
        kind: a `TypedDict` of its fields. Their types are taken strictly: "3" is no number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or a field is missing or of another type; names file and field.
    """
    fields = read_json(path)
    try:
        TypeAdapter(kind).validate_python(fields, strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'all of it'}: {one['msg']}" for one in error.errors()[:5]]
        raise ValueError(
            f"{path} does not describe what it should: {'; '.join(wrong)}. Restore it, or make it again."
        ) from error
    return fields


@contextmanager
def damage_named(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Say which file it was that a library could not read.

    Args:
        path: the file that the body reads.
        kind: what it should be, such as "Parquet".

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is cut short, damaged or of another kind; names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: restore it or make it again")
    try:
        yield
    except PermissionError:
        raise
    except UNREADABLE as error:
        raise OSError(
            f"{path} is truncated, damaged or no {kind} file ({error}): restore it or make it again"
        ) from error


def open_parquet(path: str | os.PathLike[str], metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file whose pages are compared with their checksums, where it has any; see `damage_named`."""
    return pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True)


def read_parquet(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, every value of it checked; folders in its path add no columns.

    Args:
        path: the file.
        columns: all of them by default.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is cut short, damaged, or no Parquet file; names it.
    """
    with damage_named(path, "Parquet"), open_parquet(path) as file:
        table = file.read(columns=None if columns is None else list(columns))
        table.validate(full=True)  # a flipped bit may leave text that is no UTF-8
        return table


def parquet_batches(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    size: int = 16_384,
    metadata: pq.FileMetaData | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, `size` at a time; else as `read_parquet`. Its footer may be given."""
    with damage_named(path, "Parquet"):
        file = open_parquet(path, metadata)
    with file:
        batches = file.iter_batches(size, columns=None if columns is None else list(columns))
        while True:  # what is done with a batch is not this file's fault
            with damage_named(path, "Parquet"):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
            yield batch


def parquet_metadata(path: str | os.PathLike[str]) -> pq.FileMetaData:
    """The footer of a Parquet file: schema, and rows of each group; raises as `read_parquet`."""
    with damage_named(path, "Parquet"):
        return pq.read_metadata(path)


def open_npy(path: str | os.PathLike[str]) -> np.memmap:
    """Memory-map a `.npy` file of numbers; read-only, and nothing is ever unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is cut short, damaged, or no `.npy` file of numbers; names it.
    """
    with damage_named(path, ".npy"):
        return np.lib.format.open_memmap(path, mode="r")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused (they are not JSON)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What of `wanted` was recorded otherwise, in words: "k: there 10, now 100; ..."; empty where nothing differs."""
    differing = [key for key, value in wanted.items() if recorded.get(key) != value]
    return "; ".join(f"{key}: there {recorded.get(key)}, now {wanted[key]}" for key in differing)


def _temporary_beside(path: Path) -> Path:
    """A fresh hidden name in the folder of `path`; the suffix stays, because numpy.save appends a missing ".npy"."""
    return path.with_name(f".{uuid.uuid4().hex}.{path.name}")


@contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Something made under a fresh hidden name beside `path`, and locked: so nobody takes it for a leftover."""
    while True:
        temporary = _temporary_beside(path)
        make(temporary)
        descriptor = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks, on which nothing is removed either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # somebody was quick to remove it
    try:
        yield temporary
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Flush a file, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
