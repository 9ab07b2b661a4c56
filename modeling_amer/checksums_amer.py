"""Check that the files of a model are the ones that were saved. config.json holds the sha256 of every weights file.

A small file is hashed at every load. A file of gigabytes is hashed once. The user's cache remembers the result while
the file's size, modification time and inode stay the same.

`seal` also stores the checksums of config.json itself and of tokenizer.json.
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
REMEMBERED_FILES = 1_000  # the cache drops the oldest
CONFIG_FILE, TOKENIZER_FILE = "config.json", "tokenizer.json"
SEALS = "sealed"  # field of config.json
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def check_sha256(file: str | os.PathLike[str], expected: str, remember: bool) -> None:
    """Compare a file with its checksum.

    Args:
        file: The file to check.
        expected: Its sha256, as hexadecimal digits.
        remember: For a file above `LARGE`, trust an earlier check of the same file and remember this one (see
            `check_once`).

    Raises:
        OSError: The file is missing, or its content differs from the saved file.
    """
    path = Path(file).resolve()

    def check() -> None:
        if sha256(path) != expected:
            raise OSError(
                f"{file} is not the file that was saved (its sha256 differs from the one in config.json): fetch it "
                "again."
            )

    if remember and path.stat().st_size > LARGE:
        check_once([path], expected, check)
    else:
        check()


def check_once(files: Sequence[Path], fact: str, check: Callable[[], None]) -> None:
    """Check files, unless they passed the same check before and have not changed since.

    Passed checks are stored in `checksums.json` in `$AMER_CACHE` (default `~/.cache/amer`). If that file cannot be
    read or written, every call checks the files.

    Args:
        files: The files to check; the first one's name is the key in the cache.
        fact: Identifies the check; different checks need different values.
        check: Function that raises an error if the check fails.

    Raises:
        OSError: A file is missing.
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
    """Write checksums of config.json and tokenizer.json into config.json."""
    file, tokenizer = folder / CONFIG_FILE, folder / TOKENIZER_FILE
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields[SEALS] = {CONFIG_FILE: _sha256_of_fields(fields)}
    if tokenizer.is_file():
        fields[SEALS][TOKENIZER_FILE] = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_sealed(find: Callable[[str], str]) -> None:
    """Compare config.json and tokenizer.json with their checksums. Models of 0.1.0 have none and pass.

    Args:
        find: Function that returns the path of a file by its name.

    Raises:
        OSError: A file is missing, or has changed since it was saved.
    """
    file = find(CONFIG_FILE)
    fields = json.loads(Path(file).read_text(encoding="utf-8"))
    seals = fields.get(SEALS)
    if not isinstance(seals, dict):
        return
    if seals.get(CONFIG_FILE) != _sha256_of_fields(fields):
        raise OSError(
            f"{file} is not the file that was saved: fetch it again. If you changed it on purpose, remove its field "
            f'"{SEALS}". To override a field without editing the file, pass it to from_pretrained.'
        )
    if TOKENIZER_FILE in seals:
        tokenizer = Path(find(TOKENIZER_FILE))
        if hashlib.sha256(tokenizer.read_bytes()).hexdigest() != seals[TOKENIZER_FILE]:
            raise OSError(
                f"{tokenizer} is not the file that was saved (its sha256 differs from the one in config.json): fetch "
                "it again."
            )


def _sha256_of_fields(fields: dict[str, Any]) -> str:
    """The sha256 of a configuration's fields without the seals; the file's formatting does not matter."""
    others = {name: value for name, value in fields.items() if name != SEALS}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def check_floats(file: str | os.PathLike[str], own: Sequence[str] = ("",)) -> None:
    """Refuse integer weights: casting weights to integers rounds them to zero.

    Args:
        file: A safetensors file.
        own: Prefixes of the tensor names to check. Default: all tensors.

    Raises:
        OSError: The file is truncated, or not a safetensors file.
        ValueError: A tensor does not hold floats; the message names it.
    """
    try:
        with safe_open(file, "pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}
    except SafetensorError as error:
        raise OSError(f"{file} is truncated or not a safetensors file ({error}): fetch or save it again.") from error
    wrong = [f"{name} ({kind})" for name, kind in kinds.items() if name.startswith(tuple(own)) and kind not in FLOATS]
    if wrong:
        raise ValueError(f"{file} holds weights that are not floats, such as {', '.join(wrong[:3])}: save it again.")


def check_weights_name(name: object) -> None:
    """Refuse the name of a weights file unless it is a plain name of a safetensors file.

    Raises:
        ValueError: The name could lead out of the model's folder, or has another extension.
    """
    if not isinstance(name, str) or re.fullmatch(r"\w[\w.-]*\.safetensors", name) is None:
        raise ValueError(
            f"{name!r} is not the name of a weights file: expected one like model.safetensors, without a folder."
        )


def _cache() -> Path:
    return Path(os.path.expanduser(os.environ.get("AMER_CACHE") or "~/.cache/amer")) / REMEMBERED_FILE


def _remembered() -> dict[str, str]:
    """The hash of size, modification time, inode and check of each file; empty if the cache cannot be read."""
    try:
        notes = json.loads(_cache().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _note(path: str, stamp: str) -> None:
    """Add a file to the cache. The cache file is replaced in one step; if it cannot be written, it stays as it is."""
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
