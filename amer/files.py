"""Write files atomically, and read files with errors that name the file.

There is one reader per format. An error of a library about a damaged file becomes an `OSError` with the path. A wrong
entry in a manifest becomes a `ValueError` with path and field.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tokenize
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

Manifest = TypeVar("Manifest")
Count = Annotated[int, Field(ge=1, le=2**48)]
"""A number of documents, values or bytes in a manifest."""
TEMPORARIES = f".{'[0-9a-f]' * 32}.*"  # pattern of the names from `_temporary_beside`
# Errors that pyarrow and NumPy raise for damaged files, including errors of the operating system and invalid UTF-8.
UNREADABLE = (
    OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, TypeError, tokenize.TokenError,
    pa.ArrowException,
)  # fmt: skip


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically.

    Args:
        path: The file to create or replace. Its folder is created if missing.

    Yields:
        A temporary path in the same folder. The body writes the file there. On success it is synced to disk and
        renamed to `path`. On any failure, including an interrupt, it is removed.

    Raises:
        OSError: For example, the disk is full. The message names the file.
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
            if error.filename is not None or error.errno is None:  # the error already names a file or another cause
                raise
            raise OSError(f"{path} could not be written, is the disk full? ({error})") from error
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a new directory atomically. Removes what a killed process has left of the same directory.

    Args:
        path: The directory to create. It must not exist yet, or be empty.

    Yields:
        A temporary directory beside `path`. On success it is renamed to `path`, on any failure it is removed.

    Raises:
        FileExistsError: `path` exists and is not an empty directory.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} already exists and is not empty: remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    with _temporary(path, Path.mkdir) as temporary:
        try:
            yield temporary
            for entry in (*temporary.rglob("*"), temporary):
                _sync(entry)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporaries that killed processes have left in a folder. Live processes lock theirs.

    Args:
        folder: The folder. It may be missing.
        name: Name of a file or directory in the folder: remove its temporaries only. None: remove all.
    """
    for left in list(folder.glob(TEMPORARIES if name is None else TEMPORARIES[:-1] + escape(name))):
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
        except OSError:  # in use, or on a file system without locks, where this is unknown
            continue
        finally:
            os.close(descriptor)


def inside(folder: str | os.PathLike[str], name: object) -> Path:
    """Return the path of a file that data names, such as a manifest, after checking that it lies in `folder`.

    Opens no file. Links from the Hub's cache to the `blobs` of the same repository are allowed.

    Args:
        folder: Folder that must contain the file.
        name: Path relative to `folder`, with `/` as the separator.

    Raises:
        ValueError: `name` is not a relative path, is not allowed on some system, or leads out of `folder` by `..` or a
            symbolic link.
    """
    root = Path(folder).resolve()
    refused = ValueError(
        f"{name!r} is not a file name in {folder}: it must be a relative path and must not lead out of the folder"
    )
    if not isinstance(name, str) or "\0" in name or not PurePosixPath(name).parts:
        raise refused
    for parts in (PurePosixPath(name), PureWindowsPath(name)):
        if parts.drive or parts.root or ".." in parts.parts:
            raise refused
    path = Path(folder, name)
    try:
        real = path.resolve()
    except (OSError, RuntimeError, UnicodeError):  # circular links, lone surrogates
        raise refused from None
    snapshots = (parent for parent in (root, *root.parents) if parent.parent.name == "snapshots")
    allowed = [root, *(snapshot.parent.parent / "blobs" for snapshot in snapshots)]
    circular = any(part.is_symlink() for part in (real, *real.parents))  # Python 3.13 does not resolve such links
    if circular or real == root or not any(real.is_relative_to(place) for place in allowed):
        raise refused
    return path


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file, with or without a byte-order mark.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not JSON. The message names it.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error


def parse_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: The text is not JSON, is nested too deeply, holds a number with thousands of digits, or holds a
            lone surrogate ("\\ud83d"), which UTF-8 cannot encode.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


def read_manifest(path: str | os.PathLike[str], kind: type[Manifest]) -> Manifest:
    """Read and check a JSON file that describes the files beside it. Keeps fields that `kind` does not define.

    Args:
        path: The file.
        kind: A `TypedDict` of its fields. Types are checked strictly: "3" is not a number.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not JSON, or a field is missing or of another type. The message names file and field.
    """
    fields = read_json(path)
    try:
        TypeAdapter(kind).validate_python(fields, strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the whole file'}: {one['msg']}" for one in error.errors()[:5]]
        raise ValueError(
            f"{path} has wrong or missing fields: {'; '.join(wrong)}. Restore the file, or make it again."
        ) from error
    return fields


@contextmanager
def damage_named(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Name the file in errors of a library that reads it.

    Args:
        path: The file that the body reads.
        kind: The expected format, such as "Parquet".

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file is truncated, damaged or of another format. The message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: restore it or make it again")
    try:
        yield
    except PermissionError:
        raise
    except UNREADABLE as error:
        raise OSError(
            f"{path} is truncated, damaged or not a {kind} file ({error}): restore it or make it again"
        ) from error


def open_parquet(path: str | os.PathLike[str], metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file, and verify its page checksums while reading, if it has any. See `damage_named`."""
    return pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True)


def read_parquet(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file and validate all its values. Folder names in its path add no partition columns.

    Args:
        path: The file.
        columns: Columns to read. Default: all.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file is truncated, damaged or not a Parquet file. The message names it.
    """
    with damage_named(path, "Parquet"), open_parquet(path) as file:
        table = file.read(columns=None if columns is None else list(columns))
        table.validate(full=True)  # a flipped bit may leave invalid UTF-8
        return table


def parquet_batches(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    size: int = 16_384,
    metadata: pq.FileMetaData | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, `size` at a time, as `read_parquet`. `metadata` is its footer, if known."""
    with damage_named(path, "Parquet"):
        file = open_parquet(path, metadata)
    with file:
        batches = file.iter_batches(size, columns=None if columns is None else list(columns))
        while True:  # the caller's errors must not be reported as damage of this file
            with damage_named(path, "Parquet"):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
            yield batch


def parquet_metadata(path: str | os.PathLike[str]) -> pq.FileMetaData:
    """Read the footer of a Parquet file: schema and row groups. Raises the same errors as `read_parquet`."""
    with damage_named(path, "Parquet"):
        return pq.read_metadata(path)


def open_npy(path: str | os.PathLike[str]) -> np.memmap:
    """Memory-map a `.npy` file of numbers, read-only. Never unpickles anything.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file is truncated, damaged or not a `.npy` file of numbers. The message names it.
    """
    with damage_named(path, ".npy"):
        return np.lib.format.open_memmap(path, mode="r")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically. Refuses NaN and infinities, which are not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Describe where `recorded` differs from `wanted`: "k: there 10, now 100; ...". Empty if nothing differs."""
    differing = [key for key, value in wanted.items() if recorded.get(key) != value]
    return "; ".join(f"{key}: there {recorded.get(key)}, now {wanted[key]}" for key in differing)


def _temporary_beside(path: Path) -> Path:
    """Return a new hidden name beside `path`. Keeps the suffix, since numpy.save appends a missing ".npy"."""
    return path.with_name(f".{uuid.uuid4().hex}.{path.name}")


@contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a hidden temporary beside `path` and lock it, so that other processes do not remove it as a leftover."""
    while True:
        temporary = _temporary_beside(path)
        make(temporary)
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:  # another process removed it already
            continue
        with suppress(OSError):  # without locks, no process removes leftovers either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # another process removed it before it was locked
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
