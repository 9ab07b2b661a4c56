"""Detect damaged data files by their sha256. Large files are checked only once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

LARGE = 256 * 2**20  # bytes; a smaller file is hashed in half a second


def file_checksum(file: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's content as hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(file: Path, expected: object, advice: str) -> None:
    """Raise OSError, with `advice`, if the sha256 of a file differs from the recorded one."""
    if file_checksum(file) != expected:
        raise OSError(f"{file} is damaged: its sha256 differs from the recorded one; {advice}")


def check_once(files: Sequence[Path], fact: str, check: Callable[[], None]) -> None:
    """Check data files before they are used. Check large ones only once.

    If the files have more than `LARGE` bytes in total, the user's cache remembers that they passed, until the size,
    modification time or inode of a file changes (see `modeling_amer.checksums_amer.check_once`). So a bit that flips
    on the disk later, without a write, is not found.

    Args:
        files: The files to check. The result is remembered under the name of the first.
        fact: What the check establishes, as a key of the cache.
        check: Raises an error if the files are damaged.

    Raises:
        OSError: A file is missing.
    """
    if sum(file.stat().st_size for file in files) <= LARGE:
        check()
        return
    from modeling_amer.checksums_amer import check_once as remembered  # not at the top: it loads torch

    remembered(files, fact, check)
