"""Locks of a directory and of its files, so that several processes fill it together and none harms another."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amer.files import differences, read_manifest, write_json

RUN_FILE = "encoding.json"  # in an unfinished directory: what it will hold
KILLED_WRITES = f".{'[0-9a-f]' * 32}.*"  # the temporary names of `amer.files`
LOCKS = ".*.lock"
PATIENCE = 10.0  # seconds: workers of a killed process hold its lock until they notice that it is gone


@contextmanager
def share_directory(
    directory: Path, finished: str, info: Mapping[str, Any], check: Callable[[], None] | None = None
) -> Iterator[None]:
    """Fill a directory together with other processes that make the same of it; refuse all others.

    Each process holds a shared lock on the directory; the kernel releases it when the process ends, however it ends.
    A process that gets the lock alone removes the temporary files that killed processes have left. On a file system
    without locks they stay: they are hidden, and nobody reads them.

    Args:
        directory: new, empty, or one that will hold the same `info`.
        finished: name of the JSON file that makes it whole; it is written last, and `info` is part of it.
        info: what the directory will hold, as JSON has it.
        check: called by the first process before it writes anything, while the others wait.

    Raises:
        ValueError: the directory holds, or will hold, something else; says what differs.
        FileExistsError: it holds other files.
    """
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: choose a new or empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        alone = _acquire(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not alone:
            _acquire(descriptor, fcntl.LOCK_SH)  # waits until the first process has recorded what it makes
        _record_or_compare(directory, finished, info, check)
        if alone:
            for leftover in _leftovers(directory):
                leftover.unlink()
            _acquire(descriptor, fcntl.LOCK_SH)
        yield
        if (directory / finished).is_file():
            (directory / RUN_FILE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def own_directory(directory: Path, doing: str) -> Iterator[None]:
    """Keep a directory to this process while it works there; the kernel gives it free when the process ends.

    On a file system without locks nothing is kept. A directory that is made here and stays empty is removed again.

    Args:
        directory: created when missing.
        doing: what is done there, for the message: "training".

    Raises:
        FileExistsError: it is a file.
        OSError: another process keeps it, and still does after some seconds (`PATIENCE`).
    """
    made = not directory.exists()
    descriptor = _owned(directory, doing)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):
                directory.rmdir()
        os.close(descriptor)


def _owned(directory: Path, doing: str) -> int:
    deadline = time.monotonic() + PATIENCE
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
        free = _acquire_file(descriptor)
        if free:
            return descriptor
        there = os.fstat(descriptor).st_nlink > 0
        os.close(descriptor)
        if there and time.monotonic() > deadline:
            raise BlockingIOError(
                f"another process is {doing} in {directory}: wait until it has ended, or choose another directory"
            )
        time.sleep(0.1)


@contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Lock a file that is to be written, unless another process has locked it.

    The lock is on a hidden file beside it; the kernel releases it when the process ends, however it ends. On a file
    system without locks every process may write: files are written whole, so work is done twice and nothing else.

    Args:
        file: in a directory that processes share (`share_directory`).

    Yields:
        whether this process may write the file.
    """
    lock = file.with_name(f".{file.name}.lock")
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        acquired = _acquire_file(descriptor)
        try:
            yield acquired
        finally:
            if acquired:
                lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _acquire_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return os.fstat(descriptor).st_nlink > 0  # 0: another process was done, and removed it after it was opened here


def _acquire(descriptor: int, operation: int) -> bool:
    """Whether the lock was acquired; not while others hold it, nor on file systems without locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def _leftovers(directory: Path) -> set[Path]:
    """What killed processes have left behind, if no other process works here."""
    return {path for pattern in (KILLED_WRITES, LOCKS) for path in directory.glob(pattern)}


def _record_or_compare(
    directory: Path, finished: str, info: Mapping[str, Any], check: Callable[[], None] | None
) -> None:
    """Record in the directory what it will hold, or compare with what is recorded."""
    for name in (finished, RUN_FILE, finished):  # twice: another process may finish between the first two looks
        with suppress(FileNotFoundError):
            return _compare(directory / name, info)
    if {*directory.iterdir()} - _leftovers(directory):
        raise FileExistsError(f"{directory} holds other files: choose a new or empty directory")
    if check is not None:
        check()
    write_json(directory / RUN_FILE, info)


def _compare(file: Path, info: Mapping[str, Any]) -> None:
    if different := differences(read_manifest(file, dict), info):
        raise ValueError(f"{file} is of something else ({different}): choose another directory")
