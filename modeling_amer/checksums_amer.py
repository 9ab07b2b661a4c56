"""Are the files the ones that were saved? The sha256 of every weights file is in config.json.

A small file is hashed at every load. A file of gigabytes is hashed once, and remembered in the user's cache as long as
its size, time of change and inode stay the same.

config.json itself and tokenizer.json are sealed (`seal`): a checksum of what they said when they were saved is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

LARGE = 256 * 2**20  # bytes; a smaller file is hashed in half a second
REMEMBERED_FILE = "checksums.json"
REMEMBERED_FILES = 1_000  # the oldest are forgotten
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
SEALS = "sealed"  # field of config.json
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def check_sha256(file: str | os.PathLike[str], expected: str, remember: bool) -> None:
    """Compare a file with its checksum.

    Args:
        file: to read, unless it is remembered.
        expected: its sha256, as hexadecimal digits.
        remember: believe what was found before of the same file, and note what is found now, if the file is `LARGE`
            (see `check_once`).

    Raises:
        OSError: the file is not there, or another than the one that was saved.
    """
    path = Path(file).resolve()

    def check() -> None:
        if sha256(path) != expected:
            raise OSError(
                f"{file} is not the file that was saved (its sha256 is not the one in config.json): fetch it again."
            )

    if remember and path.stat().st_size > LARGE:
        check_once([path], expected, check)
    else:
        check()


def check_once(files: Sequence[Path], fact: str, check: Callable[[], None]) -> None:
    """Check files, unless they have passed the same check before and did not change since.

    The notes are `checksums.json` in `$AMER_CACHE` (default `~/.cache/amer`); without access to it, the files are
    checked every time.

    Args:
        files: what is checked; noted under the name of the first one.
        fact: what is then known of them, another one for another check.
        check: raises where it is not so.

    Raises:
        OSError: a file is not there.
    """
    states = [Path(file).stat() for file in files]
    known = repr([(state.st_size, state.st_mtime_ns, state.st_ino) for state in states]) + fact
    stamp = hashlib.sha256(known.encode()).hexdigest()
    name = str(Path(files[0]).resolve())
    if _remembered().get(name) != stamp:
        check()
        _note(name, stamp)


def sha256(file: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def seal(folder: Path) -> None:
    """Write into config.json what tells whether it and tokenizer.json are as they were saved."""
    file, tokenizer = folder / CONFIG_FILE, folder / TOKENIZER_FILE
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields[SEALS] = {CONFIG_FILE: _sha256_of_fields(fields)}
    if tokenizer.is_file():
        fields[SEALS][TOKENIZER_FILE] = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_sealed(find: Callable[[str], str]) -> None:
    """Compare config.json and tokenizer.json with what they were when they were saved; models of 0.1.0 do not say.

    Args:
        find: name of a file -> its path.

    Raises:
        OSError: one is not there, or changed since.
    """
    file = find(CONFIG_FILE)
    fields = json.loads(Path(file).read_text(encoding="utf-8"))
    seals = fields.get(SEALS)
    if not isinstance(seals, dict):
        return
    if seals.get(CONFIG_FILE) != _sha256_of_fields(fields):
        raise OSError(
            f"{file} does not say what was saved: fetch it again. Who has changed it on purpose takes the field "
            f'"{SEALS}" out of it; to override a field, pass it to from_pretrained.'
        )
    if TOKENIZER_FILE in seals:
        tokenizer = Path(find(TOKENIZER_FILE))
        if hashlib.sha256(tokenizer.read_bytes()).hexdigest() != seals[TOKENIZER_FILE]:
            raise OSError(f"{tokenizer} is not the file that was saved (see config.json): fetch it again.")


def _sha256_of_fields(fields: dict[str, Any]) -> str:
    """The sha256 of a configuration, however it is written, without the seals."""
    others = {name: value for name, value in fields.items() if name != SEALS}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def check_floats(file: str | os.PathLike[str], own: Sequence[str] = ("",)) -> None:
    """Refuse weights that are whole numbers: as such they round to zeros, and so do the vectors.

    Args:
        file: of safetensors.
        own: beginnings of the names that are looked at; all by default.

    Raises:
        OSError: it is truncated, or no file of safetensors.
        ValueError: a tensor is not of floats; names it.
    """
    try:
        with safe_open(file, "pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}
    except SafetensorError as error:
        raise OSError(f"{file} is truncated or not a safetensors file ({error}): fetch or save it again.") from error
    wrong = [f"{name} ({kind})" for name, kind in kinds.items() if name.startswith(tuple(own)) and kind not in FLOATS]
    if wrong:
        raise ValueError(f"{file} holds weights that are no floats, such as {', '.join(wrong[:3])}: save it again.")


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


def _remembered() -> dict[str, str]:
    """File -> what stands for its size, time of change, inode and check; empty if the notes cannot be read."""
    try:
        notes = json.loads(_cache().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _note(path: str, stamp: str) -> None:
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
