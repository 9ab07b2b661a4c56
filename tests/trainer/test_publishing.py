"""Who sees a repository that a training creates, and what a training finishes before it begins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from amer.trainer import publishing
from modeling_amer import staging_amer
from modeling_amer.staging_amer import PENDING, staged
from tests.conftest import build
from tests.trainer.test_trainer import make_trainer


@pytest.mark.parametrize(
    ("hub_private_repo", "private", "expected"),
    [
        (None, None, True),
        (True, None, True),
        (False, None, False),
        (None, False, False),
        (False, True, True),
        (True, False, False),
    ],
)
def test_a_repository_is_private_unless_it_is_said_to_be_public(
    llama, world, tmp_path, monkeypatch, hub_private_repo, private, expected
):
    created = []

    def create_repo(self, name, **options):
        created.append((name, options["private"]))
        return SimpleNamespace(repo_id=name)

    monkeypatch.setattr(publishing.HfApi, "create_repo", create_repo)
    trainer = make_trainer(build(llama), world, tmp_path, hub_model_id="org/name", hub_private_repo=hub_private_repo)
    trainer.init_hf_repo(private=private)
    assert created == [("org/name", expected)] and trainer.hub_model_id == "org/name"


def test_public_and_private_at_once_is_refused_before_anything_is_saved(llama, world, tmp_path):
    trainer = make_trainer(build(llama), world, tmp_path / "out")
    with pytest.raises(ValueError, match="contradict"):
        trainer.push_to_hub(public=True, private=True)
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_training_finishes_saves_that_were_cut_short_in_its_own_folders(llama, world, tmp_path, monkeypatch):
    own, other = tmp_path / "out", tmp_path / "other"
    folders = [own, own / "checkpoint-2", other]
    with monkeypatch.context() as patch:
        patch.setattr(staging_amer, "finish_interrupted_save", lambda folder: False)
        for folder in folders:
            folder.mkdir(parents=True)
            for name in ("run.json", "trainer_state.json"):  # as in a whole checkpoint
                (folder / name).write_text("{}")
            with staged(folder) as stage:
                (stage / "config.json").write_text("new")
                (stage / "model.safetensors").write_text("new")
    assert all((folder / PENDING / "config.json").is_file() for folder in folders)
    make_trainer(build(llama), world, own, max_steps=1).train()
    for folder in folders[:2]:
        assert (folder / "config.json").read_text() == "new" and not (folder / PENDING).exists()
    assert (other / PENDING).is_dir()
