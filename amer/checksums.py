"""Are files of data the ones that were written? Their sha256 tells; what is large is read through once for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

LARGE = 256 * 2**20  # bytes; less is hashed in half a second


def file_checksum(file: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content, as hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(file: Path, expected: object, advice: str) -> None:
    """Raise OSError, with the advice, if the sha256 of a file is not the one that was recorded."""
    if file_checksum(file) != expected:
        raise OSError(f"{file} is damaged: its sha256 is not the one that was recorded; {advice}")


def check_once(files: Sequence[Path], fact: str, check: Callable[[], None]) -> None:
    """Check files of data before they are used; large ones once.

    More than `LARGE` bytes that have passed are remembered in the user's cache, until the size, time of change or
    inode of a file is another (see `modeling_amer.checksums_amer.check_once`). A bit that flips on the disk later,
    without a write, is not found.

    Args:
        files: all that is checked; remembered under the name of the first.
        fact: what is then known of them.
        check: raises where it is not so.

    Raises:
        OSError: a file is not there.
    """
    if sum(file.stat().st_size for file in files) <= LARGE:
        check()
        return
    from modeling_amer.checksums_amer import check_once as remembered  # here, for it brings torch along

    remembered(files, fact, check)
