"""Are the weights the ones that were saved? The sha256 of every weights file is in config.json.

A small file is hashed at every load. A file of gigabytes is hashed once, and remembered in the user's cache as long as
its size, time of change and inode stay the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

LARGE = 256 * 2**20  # bytes; a smaller file is hashed in half a second
REMEMBERED_FILE = "checksums.json"
REMEMBERED_FILES = 1_000  # the oldest are forgotten


def check_sha256(file: str | os.PathLike[str], expected: str, remember: bool) -> None:
    """Compare a file with its checksum.

    Args:
        file: to read, unless it is remembered.
        expected: its sha256, as hexadecimal digits.
        remember: believe what was found before of the same file, and note what is found now, if the file is `LARGE`.
            The notes are `checksums.json` in `$AMER_CACHE` (default `~/.cache/amer`); without access to it, the file
            is hashed.

    Raises:
        OSError: the file is not there, or another than the one that was saved.
    """
    path = Path(file).resolve()
    state = path.stat()
    stamp: list[int | str] = [state.st_size, state.st_mtime_ns, state.st_ino, expected]
    remember = remember and state.st_size > LARGE
    if remember and _remembered().get(str(path)) == stamp:
        return
    if sha256(path) != expected:
        raise OSError(
            f"{file} is not the file that was saved (its sha256 is not the one in config.json): fetch it again."
        )
    if remember:
        _note(str(path), stamp)


def sha256(file: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_weights_name(name: object) -> None:
    """Refuse what a configuration or an index calls a weights file, if it is no plain name of a safetensors file.

    Raises:
        ValueError: it could lead out of the model's folder, or is of another kind.
    """
    if not isinstance(name, str) or re.fullmatch(r"\w[\w.-]*\.safetensors", name) is None:
        raise ValueError(
            f"{name!r} is no name of a weights file: expected one like model.safetensors, with no folder."
        )


def _cache() -> Path:
    return Path(os.path.expanduser(os.environ.get("AMER_CACHE") or "~/.cache/amer")) / REMEMBERED_FILE


def _remembered() -> dict[str, list[int | str]]:
    """File -> size, time of change, inode and sha256; empty if the notes cannot be read."""
    try:
        notes = json.loads(_cache().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _note(path: str, stamp: list[int | str]) -> None:
    """Add a file to the notes, which are written whole or not at all; where they cannot be, nothing is noted."""
    notes = {other: known for other, known in _remembered().items() if other != path}
    notes = dict([*notes.items(), (path, stamp)][-REMEMBERED_FILES:])
    cache = _cache()
    temporary = cache.with_name(f".{uuid.uuid4().hex}.{cache.name}")
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
            os.replace(temporary, cache)
        finally:
            temporary.unlink(missing_ok=True)
