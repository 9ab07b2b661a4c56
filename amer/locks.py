"""Locks of a directory and of its files, so that several processes can fill a directory together safely."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amer.files import TEMPORARIES, differences, read_manifest, remove_leftovers, write_json

RUN_FILE = "encoding.json"  # in an unfinished directory: records its future contents
LOCKS = ".*.lock"
PATIENCE = 10.0  # seconds to wait: workers of a killed process hold its lock until they notice the kill


@contextmanager
def share_directory(
    directory: Path, finished: str, info: Mapping[str, Any], check: Callable[[], None] | None = None
) -> Iterator[None]:
    """Share a directory with other processes that fill it with the same `info`. Refuse processes with another `info`.

    Each process holds a shared lock on the directory. The kernel releases the lock when the process ends in any way. A
    process that gets the exclusive lock removes temporary files of killed processes. On a file system without locks
    these files stay; they are hidden and nobody reads them.

    Args:
        directory: A directory: new, empty, or with the same `info`.
        finished: Name of the JSON file that marks the directory as finished. It is written last and includes `info`.
        info: Description of the directory's contents, as JSON values.
        check: Called by the first process before it writes anything, while the other processes wait.

    Raises:
        ValueError: The directory has another `info`. The message names the differences.
        FileExistsError: The directory holds other files.
    """
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: choose a new or empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        alone = _acquire(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not alone:
            _acquire(descriptor, fcntl.LOCK_SH)  # waits until the first process has recorded its `info`
        _record_or_compare(directory, finished, info, check)
        if alone:
            remove_leftovers(directory)
            for lock in [*directory.glob(LOCKS)]:
                lock.unlink()
            _acquire(descriptor, fcntl.LOCK_SH)
        yield
        if (directory / finished).is_file():
            (directory / RUN_FILE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def own_directory(directory: Path, doing: str) -> Iterator[None]:
    """Lock a directory for this process alone. The kernel releases the lock when the process ends.

    On a file system without locks, the directory is not protected. A directory that was created here is removed if it
    stays empty.

    Args:
        directory: The directory to lock. Created if missing.
        doing: What the process does there, for messages: "training".

    Raises:
        FileExistsError: `directory` is a file.
        OSError: Another process still holds the lock after `PATIENCE` seconds.
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
    """Try to lock a file before writing it.

    The lock is on a hidden file beside it. The kernel releases it when the process ends in any way. On a file system
    without locks, every process may write. Since files are written atomically, this only repeats work.

    Args:
        file: A file in a shared directory (`share_directory`).

    Yields:
        Whether this process may write the file.
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
    return os.fstat(descriptor).st_nlink > 0  # 0: another process finished and removed the lock file


def _acquire(descriptor: int, operation: int) -> bool:
    """Return whether the lock was acquired: False if others hold it, or on a file system without locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def _record_or_compare(
    directory: Path, finished: str, info: Mapping[str, Any], check: Callable[[], None] | None
) -> None:
    """Record `info` in the directory, or compare it with the recorded one."""
    for name in (finished, RUN_FILE, finished):  # twice: another process may finish between the first two reads
        with suppress(FileNotFoundError):
            return _compare(directory / name, info)
    hidden = (path for pattern in (TEMPORARIES, LOCKS) for path in directory.glob(pattern))
    if {*directory.iterdir()} - {*hidden}:
        raise FileExistsError(f"{directory} holds other files: choose a new or empty directory")
    if check is not None:
        check()
    write_json(directory / RUN_FILE, info)


def _compare(file: Path, info: Mapping[str, Any]) -> None:
    if different := differences(read_manifest(file, dict), info):
        raise ValueError(f"{file} records other contents ({different}): choose another directory")
