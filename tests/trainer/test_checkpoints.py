"""Which checkpoints are kept, which go, and what is said of damaged ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from amer.trainer import checkpoints
from amer.trainer.checkpoints import check_checkpoint, delete, remove_unfinished, rotate
from amer.trainer.resuming import last_checkpoint, steps_of
from tests.conftest import build
from tests.trainer.test_trainer import make_trainer


def make(output: Path, *steps: int) -> None:
    """Whole checkpoints, the last of them made first: times say nothing."""
    for step in sorted(steps, reverse=True):
        folder = output / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.pt"):
            (folder / name).write_text(name)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 100}))


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


def test_those_of_the_fewest_steps_go_whatever_their_times_say(tmp_path):
    make(tmp_path, 4, 8, 12, 100)
    rotate(tmp_path, 2, best=None)
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-12"]


@pytest.mark.parametrize(("limit", "kept"), [(1, [4, 12]), (2, [4, 12]), (3, [4, 8, 12]), (9, [4, 8, 12])])
def test_the_last_and_the_best_stay(tmp_path, limit, kept):
    make(tmp_path, 4, 8, 12)
    rotate(tmp_path, limit, best=str(tmp_path / "checkpoint-4"))
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in kept}


@pytest.mark.parametrize("after", range(3))
def test_a_rotation_that_is_killed_leaves_no_half_that_drives_out_a_whole_one(tmp_path, monkeypatch, after):
    """As the Trainer did: checkpoint-12, half deleted, was the newest by its time and drove out checkpoint-20."""
    make(tmp_path, 12, 16, 20)
    files = iter(range(after))

    def killed(folder: Path, **options: object) -> None:
        for file in sorted(Path(folder).glob("*")):
            if next(files, None) is None:
                raise KeyboardInterrupt
            file.unlink()

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        delete(tmp_path / "checkpoint-12")
    monkeypatch.undo()
    assert not (tmp_path / "checkpoint-12").exists()
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["checkpoint-16", "checkpoint-20"]


@pytest.mark.parametrize("lost", ["trainer_state.json", "model.safetensors"])
def test_a_half_of_an_earlier_version_is_removed_when_a_training_starts(llama, world, tmp_path, lost):
    make(tmp_path, 12)
    shutil.copytree(tmp_path / "checkpoint-12", tmp_path / "checkpoint-20")
    (tmp_path / "checkpoint-20" / lost).unlink()
    (tmp_path / ".deleted-checkpoint-8").mkdir()
    (tmp_path / ".amer-saving-0123").mkdir()
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-12")
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    make_trainer(build(llama), world, tmp_path, **options).train()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"checkpoint-2", "checkpoint-12"}


def test_a_training_keeps_as_many_checkpoints_as_are_asked_for(llama, world, tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    trainer = make_trainer(build(llama), world, tmp_path, **options)
    trainer.train()
    assert [path.name for path in checkpoints.checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-4"]
    assert trainer.args.save_total_limit == 2
    assert json.loads((tmp_path / "checkpoint-4" / "training_args.json").read_text())["save_total_limit"] == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_a_damaged_file_of_a_checkpoint_is_named_before_training_goes_on(checkpoint, tmp_path, name, damage):
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint-1")
    content = bytearray((copy / name).read_bytes())
    at = len(content) // 2
    if name != "model.safetensors":  # between the parts of a zip file there is padding
        with ZipFile(copy / name) as parts:
            at = content.index(max(map(parts.read, parts.namelist()), key=len)) + 10
    content[at] ^= 1
    (copy / name).write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with pytest.raises(OSError, match=rf"{name} is (truncated|not the file)"):
        check_checkpoint(str(copy))


@pytest.fixture(scope="module")
def checkpoint(llama, world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_trainer(build(llama), world, folder, max_steps=1, save_strategy="steps", save_steps=1).train()
    check_checkpoint(str(folder / "checkpoint-1"))
    return folder / "checkpoint-1"


def test_a_full_disk_is_said_so_with_the_folder(llama, world, tmp_path):
    resource = pytest.importorskip("resource")
    trainer = make_trainer(build(llama), world, tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    child = os.fork()  # a file may not grow beyond a limit there, as on a full disk
    if child == 0:
        try:
            model, save = trainer.model, trainer._save_optimizer_and_scheduler

            def limited(folder: str) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
                save(folder)

            trainer._save_optimizer_and_scheduler = limited
            trainer.create_optimizer_and_scheduler(1)
            trainer._save_checkpoint(model, None)
        except OSError as error:
            os._exit(0 if "is the disk full" in str(error) and str(tmp_path) in str(error) else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "state", ["[]", "3", "{", '{"global_step": 2}', '{"global_step": "2", "max_steps": 4}', "[" * 100_000]
)
def test_a_state_of_wrong_types_is_refused_by_name(tmp_path, state):
    make(tmp_path, 2)
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(state)
    with pytest.raises(ValueError, match=r"trainer_state\.json is not the state of a training"):
        steps_of(tmp_path / "checkpoint-2")
    remove_unfinished(tmp_path)
