"""Who is at work in a directory that is being filled, so that processes share the work and none harms another."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amer.files import read_json, write_json

RUN_FILE = "encoding.json"  # what an unfinished directory is becoming
KILLED_WRITES = f".{'[0-9a-f]' * 32}.*"  # the temporary names of `amer.files`
LOCKS = ".*.lock"


@contextmanager
def shared_directory(
    directory: Path, finished: str, info: Mapping[str, Any], first: Callable[[], None] | None = None
) -> Iterator[None]:
    """Work in a directory that is becoming what `info` says, beside other processes that do, and no others.

    Everyone at work holds a lock on the directory, which the kernel takes back however its holder ends. Who gets it
    alone knows that all temporary files are of killed processes, and removes them. Where a file system locks no
    directories they stay: hidden, and read by nobody.

    Args:
        directory: new, empty, or of the same `info`.
        finished: name of the JSON file that makes it whole, written last; `info` is part of it.
        info: what the directory holds, as JSON has it.
        first: called by the first one here, before the directory is claimed, while the others wait: a check that need
            not be made twice.

    Raises:
        ValueError: the directory is, or is becoming, something else; says what differs.
        FileExistsError: it holds other files.
    """
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: choose a new or empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        alone = _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not alone:
            _locked(descriptor, fcntl.LOCK_SH)  # waits for the one that is alone to make its claim
        _claim(directory, finished, info, first)
        if alone:
            for leftover in _leftovers(directory):
                leftover.unlink()
            _locked(descriptor, fcntl.LOCK_SH)
        yield
        if (directory / finished).is_file():
            (directory / RUN_FILE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Hold the right to write `file`, which lies in a claimed directory, if no other process holds it.

    It is a lock on a hidden file beside it, which the kernel takes back however its holder ends. Where a file system
    has no locks everyone is given the right: files are written whole, so that the work is done twice and nothing else.

    Yields:
        whether the right was to be had.
    """
    lock = file.with_name(f".{file.name}.lock")
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        free = _free(descriptor)
        try:
            yield free
        finally:
            if free:
                lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return os.fstat(descriptor).st_nlink > 0  # else its holder was done, and removed it, after it had been opened


def _locked(descriptor: int, operation: int) -> bool:
    """Whether the lock was to be had; not if others hold it, nor on file systems without locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def _leftovers(directory: Path) -> set[Path]:
    """What killed processes have left behind, if nobody else is at work."""
    return {path for pattern in (KILLED_WRITES, LOCKS) for path in directory.glob(pattern)}


def _claim(directory: Path, finished: str, info: Mapping[str, Any], first: Callable[[], None] | None) -> None:
    """Note in the directory what it is becoming, or check that it was becoming, or is, the same."""
    for name in (finished, RUN_FILE, finished):  # twice: another worker may finish between the first two looks
        with suppress(FileNotFoundError):
            return _check_same(directory / name, info)
    if {*directory.iterdir()} - _leftovers(directory):
        raise FileExistsError(f"{directory} holds other files: choose a new or empty directory")
    if first is not None:
        first()
    write_json(directory / RUN_FILE, info)


def _check_same(file: Path, info: Mapping[str, Any]) -> None:
    recorded = read_json(file)
    differing = [key for key, value in info.items() if recorded.get(key) != value]
    if differing:
        details = "; ".join(f"{key}: there {recorded.get(key)}, now {info[key]}" for key in differing)
        raise ValueError(f"{file} is of something else ({details}): choose another directory")
