"""Save a folder in one step: a reader finds the old files or the new ones, never a mixture.

A save first writes new files into a separate folder. One rename then commits it, by giving the complete new save a
known name, `PENDING`. The save links its files to their places and removes `PENDING` at the end. If the process dies
in between, `PENDING` is complete: readers read from it (`place_of_save`), and the next save finishes the work. Reading
never changes a file, and no file contains instructions to move or delete others.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

PENDING = ".amer-save"  # a complete save whose files are not all in their places yet
UNFINISHED = ".amer-saving-"
# Files that an earlier save may have left. A new save deletes them unless it writes them again.
REPLACED = (
    "model*.safetensors",
    "model*.safetensors.index.json",
    "adapter/*",
    "probe.json",
    "modules.json",
    "config_sentence_transformers.json",
)
# Files of tokenizers; each kind saves some of them.
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Write files into a folder that may hold others: all of them or none.

    Args:
        folder: Created if it does not exist. Other files in it stay, except those of an earlier save (`REPLACED`).

    Yields:
        An empty folder to write into. On success, its files move to their places; on failure, it is removed.

    Raises:
        OSError: An unfinished earlier save holds symbolic links, or the disk is full.
    """
    folder = Path(folder).resolve()
    beside = _can_appear_at_once(folder)
    if beside:
        folder.parent.mkdir(parents=True, exist_ok=True)
    else:
        finish_interrupted_save(folder)
        for leftover in folder.glob(f"{UNFINISHED}*"):
            _remove(leftover)
    stage = (folder.parent if beside else folder) / f"{UNFINISHED}{uuid.uuid4().hex}"
    stage.mkdir()
    try:
        yield stage
        for path in (*stage.rglob("*"), stage):
            _sync(path)
        if not (beside and _appears(stage, folder)):
            os.replace(stage, folder / PENDING)
            _sync(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    finish_interrupted_save(folder)


def place_of_save(folder: str | os.PathLike[str], subfolder: str = "") -> str:
    """The subfolder from which to read a saved model: `subfolder` itself, or a complete pending save in it.

    A save is pending if it was interrupted after its rename. This function changes nothing.

    Args:
        folder: A folder, or the name of a repository on the Hub, which has no pending save.
        subfolder: Subfolder of the folder or repository.
    """
    pending = os.path.join(subfolder, PENDING)
    return pending if os.path.isdir(os.path.join(folder, pending)) else subfolder


def saved_file(where: str | os.PathLike[str], name: str, **options: Any) -> str:
    """The path of one file of a folder or of a repository on the Hub.

    Args:
        where: A folder, or the name of a repository.
        name: Name of the file.
        options: Options of transformers' `cached_file`: `revision`, `subfolder`, `token`, ...

    Raises:
        OSError: The file does not exist.
    """
    file = cached_file(where, name, **options)
    if file is None:
        raise OSError(f"{where} has no {name}: save or fetch the model again.")
    return file


def finish_interrupted_save(folder: str | os.PathLike[str]) -> bool:
    """Finish a save that was interrupted after its rename. Only for writers, in a folder of their own.

    Returns:
        Whether there was such a save.

    Raises:
        OSError: The save is or holds a symbolic link, or a target folder is one; AMER never makes such a save.
    """
    folder = Path(folder)
    pending = folder / PENDING
    if not (pending.is_dir() or pending.is_symlink()):
        return False
    _refuse_link(pending)
    names = _names(pending)
    for pattern in REPLACED:
        for old in folder.glob(pattern):
            saved_again = old.relative_to(folder).as_posix() in names
            if not (saved_again or old.parent.is_symlink()):  # files behind a link are not ours
                old.unlink(missing_ok=True)
    try:
        for name in names:
            _put(pending / name, folder, name)
    except FileNotFoundError:
        if pending.exists():
            raise
        return True  # another process was faster
    _sync(folder)
    done = folder / f"{UNFINISHED}{uuid.uuid4().hex}"
    with suppress(FileNotFoundError):
        os.rename(pending, done)
    shutil.rmtree(done, ignore_errors=True)
    return True


def _names(pending: Path) -> list[str]:
    """The names of all files of a save, with `/` after folders; code and configuration come first."""
    paths = sorted(pending.rglob("*"))
    for path in paths:
        _refuse_link(path)
    names = [path.relative_to(pending).as_posix() for path in paths if path.is_file()]
    return sorted(names, key=lambda name: (not name.endswith(".py"), name != "config.json", name))


def _put(source: Path, folder: Path, name: str) -> None:
    """Move a file of a save to its place. A link in that place is replaced; its target does not change."""
    target = folder / name
    for parent in target.parents:
        if parent == folder:
            break
        _refuse_link(parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        _link_or_copy(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # still exists if both were already the same file


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
        _sync(target)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise OSError(
            f"{path} is a symbolic link, which saving an AMER model never makes: remove it, then save again."
        )


def _remove(path: Path) -> None:
    """Remove a folder with its content, a file, or a link (not its target)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _can_appear_at_once(folder: Path) -> bool:
    """Whether one rename can create the whole folder."""
    if not folder.exists():
        return True
    empty = folder.is_dir() and not any(folder.iterdir())
    return empty and os.access(folder.parent, os.W_OK) and not os.path.ismount(folder)


def _appears(stage: Path, folder: Path) -> bool:
    """Rename the stage to the folder. False if another process has written a file into the folder meanwhile."""
    try:
        os.replace(stage, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    _sync(folder.parent)
    return True


def _sync(path: Path) -> None:
    with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems cannot sync a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
