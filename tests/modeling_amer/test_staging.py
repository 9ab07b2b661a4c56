"""A save killed at any moment leaves the old files or the new ones: every step of it is tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import count

import pytest

from modeling_amer.staging_amer import PENDING, UNFINISHED, finish_interrupted_save, place_of_save, staged
from tests.conftest import DIM, LORA, build

OLD = {
    "config.json": "old",
    "model-00001-of-00002.safetensors": "old",
    "model-00002-of-00002.safetensors": "old",
    "model.safetensors.index.json": "old",
    "adapter/adapter_model.safetensors": "old",
    "run.json": "the user's",
}
NEW = {"config.json": "new", "model.safetensors": "new", "modeling_amer.py": "new", "tokenizer.json": "new"}
AFTER = {**NEW, "run.json": "the user's"}
CHANGES = ("open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read_as_a_reader(folder):
    """The files of a save as a reader finds them, who changes nothing."""
    before = read(folder)
    place = folder / place_of_save(folder)
    found = {path.relative_to(place).as_posix(): path.read_text() for path in place.rglob("*") if path.is_file()}
    assert read(folder) == before
    return {name: text for name, text in found.items() if name in {*OLD, *NEW} - {"run.json"}}


def read(folder):
    """Every file but those of saves that never came about."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in files.items() if not name.startswith(UNFINISHED)}


def save(folder):
    with staged(folder) as stage:
        write(stage, NEW)


def killed_at(step: int, act) -> bool:
    """Act in a process of its own, which dies before its change number `step` of the disk; whether it died."""
    child = os.fork()
    if child == 0:
        changes = count()

        def die(event, arguments):
            if event in CHANGES and next(changes) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("before", [OLD, {}, None], ids=["other-files", "empty", "missing"])
def test_a_killed_save_leaves_the_old_files_or_the_new(before, tmp_path):
    outcomes = set()
    for step in count():
        folder = tmp_path / str(step) / "model"
        if before is not None:
            folder.mkdir(parents=True)
            write(folder, before)
        died = killed_at(step, lambda folder=folder: save(folder))
        if folder.exists():
            old = {name: text for name, text in (before or {}).items() if name != "run.json"}
            assert read_as_a_reader(folder) in (old, NEW), f"killed at step {step}"
        finish_interrupted_save(folder)
        found = read(folder) if folder.exists() else None
        new = {**NEW, **({"run.json": OLD["run.json"]} if before else {})}
        assert found in (before, new) and (died or found == new), f"killed at step {step}"
        outcomes.add(found == new)
        save(folder)  # and the next save is none the worse for it
        assert read(folder) == new and not list(folder.glob(f"{UNFINISHED}*"))
        if not died:
            break
    assert step > 5 and outcomes == {True, False}


def test_finishing_a_save_can_be_killed_too(tmp_path, monkeypatch):
    for step in count():
        folder = tmp_path / str(step)
        write(folder, OLD)
        with monkeypatch.context() as patch:
            patch.setattr("modeling_amer.staging_amer.finish_interrupted_save", lambda folder: False)
            save(folder)
        assert (folder / PENDING).is_dir()
        died = killed_at(step, lambda folder=folder: finish_interrupted_save(folder))
        assert read_as_a_reader(folder) == NEW, f"killed at step {step}"
        finish_interrupted_save(folder)
        assert read(folder) == AFTER, f"killed at step {step}"
        if not died:
            break
    assert step > len(NEW)


def test_a_file_that_another_process_adds_meanwhile_stays(tmp_path):
    with staged(tmp_path / "checkpoint") as stage:
        write(stage, NEW)
        write(tmp_path / "checkpoint", {"rng_state_1.pth": "of the other process"})
    assert read(tmp_path / "checkpoint") == {**NEW, "rng_state_1.pth": "of the other process"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_without_hard_links_a_save_is_copied_to_its_place(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path, OLD)
    save(tmp_path)
    assert read(tmp_path) == AFTER and not list(tmp_path.glob(".*"))


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path):
    write(tmp_path, OLD)
    with pytest.raises(RuntimeError), staged(tmp_path) as stage:
        write(stage, NEW)
        raise RuntimeError
    assert read(tmp_path) == OLD and not list(tmp_path.glob(".*"))


KILLED_MODEL = """
import os, shutil, signal, sys
from itertools import count
import torch
from modeling_amer import AMERModel

old, new, folder = sys.argv[1:4]
models = {name: AMERModel.from_pretrained(name) for name in (old, new)}
vectors = {name: model.encode_query(["bank"]) for name, model in models.items()}
seen = []
for step in range(0, 400, 7):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(old, folder)
    child = os.fork()
    if child == 0:
        changes = count()
        def die(event, arguments):
            if event in ("os.mkdir", "os.link", "os.rename", "os.remove", "open") and next(changes) == step:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(die)
        models[new].save_pretrained(folder)
        os._exit(0)
    died = os.waitpid(child, 0)[1] != 0
    found = AMERModel.from_pretrained(folder, verify=True).encode_query(["bank"])
    seen.append([name for name in (old, new) if torch.equal(found, vectors[name])])
    if not died:
        break
assert not died and all(len(names) == 1 for names in seen), seen
assert [old] in seen and seen[-1] == [new], seen
"""


@pytest.mark.kill
def test_a_killed_save_of_a_model_loads_as_the_old_or_the_new(llama, tmp_path):
    build(llama).save_pretrained(tmp_path / "old")
    other = build(llama, document_dim=DIM + 1, lora={**LORA, "r": 2})
    other.save_pretrained(tmp_path / "new")
    arguments = [sys.executable, "-c", KILLED_MODEL, *(str(tmp_path / name) for name in ("old", "new", "model"))]
    subprocess.run(arguments, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
