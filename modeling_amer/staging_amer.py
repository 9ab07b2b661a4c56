"""Save a folder in one step: whoever opens it finds the old files or the new ones, never some of each.

New files are first written beside the old ones. A single rename then decides; what is left to do after it, moving them
into place, is finished by whoever comes next if the process dies.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

JOURNAL = ".amer-saved"  # a complete save whose files are on their way to their places
MANIFEST = "files.json"  # in the journal: every file of the save, in the order in which they are moved
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
    """
    folder = Path(folder).resolve()
    beside = _can_appear_at_once(folder)
    if beside:
        folder.parent.mkdir(parents=True, exist_ok=True)
    else:
        finish_interrupted_save(folder)
        for leftover in (folder / JOURNAL, *folder.glob(f"{UNFINISHED}*")):
            shutil.rmtree(leftover, ignore_errors=True)
    stage = (folder.parent if beside else folder) / f"{UNFINISHED}{uuid.uuid4().hex}"
    stage.mkdir()
    try:
        yield stage
        for path in (*stage.rglob("*"), stage):
            _sync(path)
        if not (beside and _appears(stage, folder)):
            (stage / MANIFEST).write_text(json.dumps(_in_order(stage)), encoding="utf-8")
            _sync(stage / MANIFEST)
            os.replace(stage, folder / JOURNAL)
            _sync(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    finish_interrupted_save(folder)


def finish_interrupted_save(folder: str | os.PathLike[str]) -> bool:
    """Finish a save that was cut short after the rename that decided it.

    Returns:
        whether there was one.
    """
    folder = Path(folder)
    try:
        files = json.loads((folder / JOURNAL / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    for pattern in REPLACED:
        for old in folder.glob(pattern):
            if old.relative_to(folder).as_posix() not in files:
                old.unlink(missing_ok=True)
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # moved already, before the interruption or by another process
            os.replace(folder / JOURNAL / name, folder / name)
    shutil.rmtree(folder / JOURNAL, ignore_errors=True)
    return True


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


def _in_order(stage: Path) -> list[str]:
    """Code and configuration first: what is needed to load the folder is there soonest."""
    names = [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]
    return sorted(names, key=lambda name: (not name.endswith(".py"), name != "config.json", name))


def _sync(path: Path) -> None:
    with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems cannot sync a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
