"""Save a folder in one step: whoever opens it finds the old files or the new ones, never some of each.

New files are first written beside the old ones. One rename decides: it makes the complete new save a folder of a known
name, `PENDING`. Its files are then linked to their places, and when all are there, `PENDING` goes. Where a process
died in between, `PENDING` is complete: readers read there (`place_of_save`), and the next save finishes the work.
Reading never changes a file, and no file says which others are moved or deleted.
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

PENDING = ".amer-save"  # a complete save whose files are on their way to their places
UNFINISHED = ".amer-saving-"
# What an earlier save may have left and a new one need not have: gone unless it is saved again.
REPLACED = (
    "model*.safetensors",
    "model*.safetensors.index.json",
    "adapter/*",
    "probe.json",
    "modules.json",
    "config_sentence_transformers.json",
)
# What tokenizers save, each kind some of it.
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Write files into a folder that may hold others: all of them or none.

    Args:
        folder: created when missing; other files in it stay, but for those of an earlier save (`REPLACED`).

    Yields:
        An empty folder to write into. On success its files take their places, on any failure it is removed.

    Raises:
        OSError: an earlier save to finish first holds symbolic links; or the disk is full.
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
    """The subfolder to read a saved model from: `subfolder` itself, but where a save into it was cut short after the
    rename that decided it, the complete new save inside. Changes nothing.

    Args:
        folder: a folder, or the name of a repository on the Hub, where no save is pending.
        subfolder: of the folder or repository.
    """
    pending = os.path.join(subfolder, PENDING)
    return pending if os.path.isdir(os.path.join(folder, pending)) else subfolder


def saved_file(where: str | os.PathLike[str], name: str, **options: Any) -> str:
    """The path of one file of a folder or of a repository on the Hub.

    Args:
        where: a folder, or the name of a repository.
        name: of the file.
        options: `revision`, `subfolder`, `token`, ... of transformers' `cached_file`.

    Raises:
        OSError: it is not there.
    """
    file = cached_file(where, name, **options)
    if file is None:
        raise OSError(f"{where} has no {name}: save or fetch the model again.")
    return file


def finish_interrupted_save(folder: str | os.PathLike[str]) -> bool:
    """Finish a save that was cut short after the rename that decided it. For writers, in a folder of their own.

    Returns:
        whether there was one.

    Raises:
        OSError: the save is, or holds, a symbolic link, or one of its files belongs behind one: no save of ours does.
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
            if not (saved_again or old.parent.is_symlink()):  # what lies behind a link is somebody else's
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
    """Every file of a save, `/` between folder and file; code and configuration first."""
    paths = sorted(pending.rglob("*"))
    for path in paths:
        _refuse_link(path)
    names = [path.relative_to(pending).as_posix() for path in paths if path.is_file()]
    return sorted(names, key=lambda name: (not name.endswith(".py"), name != "config.json", name))


def _put(source: Path, folder: Path, name: str) -> None:
    """Bring a file of a save to its place, where a link would be replaced itself and not what it leads to."""
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
        temporary.unlink(missing_ok=True)  # is still there if both were the same file already


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
        raise OSError(f"{path} is a symbolic link, which no save of an AMER model makes: remove it, then save again.")


def _remove(path: Path) -> None:
    """A folder with all it holds, a file, or a link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _can_appear_at_once(folder: Path) -> bool:
    """Whether one rename can bring the whole folder into being."""
    if not folder.exists():
        return True
    empty = folder.is_dir() and not any(folder.iterdir())
    return empty and os.access(folder.parent, os.W_OK) and not os.path.ismount(folder)


def _appears(stage: Path, folder: Path) -> bool:
    """Make the stage the folder; not where another process has meanwhile put a file of its own into it."""
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
