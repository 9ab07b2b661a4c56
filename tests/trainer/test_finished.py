"""A finished training is left unchanged with the same settings, and refused with others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from amer.data import save_dataset_dir
from amer.trainer import run

SETTINGS = [
    "--num_query_vectors=2", "--lora_r=4", "--lora_target_modules=q_proj", "--max_steps=3", "--learning_rate=0.01",
    "--per_device_train_batch_size=4", "--num_random_negatives=2", "--report_to=none", "--use_cpu=1",
    "--disable_tqdm=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(world, llama, tmp_path_factory) -> SimpleNamespace:
    """The small world as a dataset directory, and the words of a training on it."""
    folder = tmp_path_factory.mktemp("data") / "dataset"
    save_dataset_dir(folder, {"train": world.dataset}, {})
    words = [f"--base_model={llama}", f"--dataset={folder}", f"--store={world.store.path}", *SETTINGS]
    return SimpleNamespace(words=words)


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("case", ["no checkpoints", "deleted checkpoints", "last one deleted", "kept checkpoints"])
def test_a_finished_training_is_left_as_it_is_and_refused_with_other_settings(data, tmp_path, case):
    out = tmp_path / "out"
    saving = ["--save_strategy=no"] if case == "no checkpoints" else ["--save_strategy=steps", "--save_steps=1"]
    words = [*data.words, *saving, f"--output_dir={out}"]
    run.main(words)
    deleted = {"deleted checkpoints": "checkpoint-*", "last one deleted": "checkpoint-3"}.get(case)
    for checkpoint in out.glob(deleted) if deleted else ():
        shutil.rmtree(checkpoint)
    before = files_of(out)
    run.main(words)
    assert files_of(out) == before
    with pytest.raises(ValueError, match=r"learning_rate \(was 0\.01, now 0\.02\).*another output_dir"):
        run.main([*words, "--learning_rate=0.02"])
    assert files_of(out) == before


def test_a_finished_training_goes_on_from_a_checkpoint_that_is_asked_for(data, tmp_path):
    out = tmp_path / "out"
    words = [*data.words, "--save_strategy=steps", "--save_steps=1", f"--output_dir={out}"]
    run.main(words)
    whole, before = (out / "model.safetensors").read_bytes(), (out / "trainer_state.json").stat().st_mtime_ns
    run.main([*words, f"--resume_from_checkpoint={out / 'checkpoint-2'}"])
    assert (out / "trainer_state.json").stat().st_mtime_ns > before
    assert (out / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_training_that_ended_before_it_was_saved_starts_again(data, tmp_path, cut_off):
    words = [*data.words, "--save_strategy=no", f"--output_dir={tmp_path / 'out'}"]
    run.main(words)
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    state = tmp_path / "out" / "trainer_state.json"  # written last
    state.write_text("") if cut_off else state.unlink()
    run.main([*words, "--learning_rate=0.02"])  # nothing to go on with, so other settings are fine
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != whole
    assert json.loads((tmp_path / "out" / "run.json").read_text())["learning_rate"] == 0.02


def test_an_anchor_may_be_spelled_otherwise(data, tmp_path):
    """`anchored: true` and `anchor: vector` are the same setting, also in the notes of earlier versions."""
    words = [*data.words, "--save_strategy=no", f"--output_dir={tmp_path / 'out'}"]
    run.main([*words, "--anchored=true"])
    note = tmp_path / "out" / "run.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "anchored": True, "anchor": None}))
    before = files_of(tmp_path / "out")
    for same in (["--anchored=true"], ["--anchor=vector"]):
        run.main([*words, *same])
        assert files_of(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"finished training with other settings: anchor \(was 'vector', now None\)"):
        run.main(words)
