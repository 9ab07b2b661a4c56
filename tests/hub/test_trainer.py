"""What the trainer publishes while it trains and afterwards, over a real connection."""

from __future__ import annotations

import json

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tests.conftest import save_tiny_base
from tests.hub.conftest import loopback_hub

pytestmark = pytest.mark.server

TRAIN = """
import json, sys, numpy as np
from pathlib import Path
from tests.conftest import build
from tests.trainer.conftest import small_world
from tests.trainer.test_trainer import make_trainer

folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
world = small_world(folder / "world")
model = build(sys.argv[3] if len(sys.argv) > 3 else "org/base")
trainer = make_trainer(model, world, folder / "out", max_steps=4, push_to_hub=True, **options)
trainer.train()
(folder / "out" / "README.md").write_text("Written by hand.\\n")
(folder / "out" / "notes.txt").write_text("of nobody's business")
(folder / "out" / "runs").mkdir()
(folder / "out" / "runs" / "events.out").write_text("logs")
trainer.push_to_hub(commit_message="done", license="apache-2.0", tags=["wordnet"])
trainer.model.save_pretrained(folder / "model")
np.save(folder / "vectors.npy", trainer.model.encode_query(["bank", "a longer question"]).numpy())
"""
OPTIONS = {
    "hub_model_id": "org/trained",
    "hub_strategy": "every_save",
    "hub_always_push": True,
    "save_strategy": "steps",
    "save_steps": 2,
}
STRANGER = """
import sys, numpy as np
from transformers import AutoModel
model = AutoModel.from_pretrained("org/trained", trust_remote_code=True, verify=True, revision=sys.argv[2])
np.save(sys.argv[1], model.encode_query(["bank", "a longer question"]).numpy())
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A Hub on which a training was published, and the folder of the training."""
    folder = tmp_path_factory.mktemp("trained")
    save_tiny_base(folder / "base", "llama")
    with loopback_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.seed("org/base", folder / "base")
        hub.run(TRAIN, folder, json.dumps(OPTIONS), project=True)
        yield hub, folder


def test_the_pushed_model_gives_strangers_the_same_vectors(trained, tmp_path):
    hub, folder = trained
    hub.run(STRANGER, tmp_path / "vectors.npy", "main")
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), np.load(folder / "vectors.npy"))
    assert hub.repo("org/trained").private


def test_every_save_pushes_a_whole_model(trained, tmp_path):
    hub, folder = trained
    commits = {commit.title: oid for oid, commit in hub.repo("org/trained").commits.items()}
    assert {"Training in progress, step 2", "Training in progress, step 4", "done"} <= set(commits)
    hub.run(STRANGER, tmp_path / "vectors.npy", commits["Training in progress, step 2"])
    assert not np.array_equal(np.load(tmp_path / "vectors.npy"), np.load(folder / "vectors.npy"))


def test_nothing_but_the_model_is_published(trained):
    hub, folder = trained
    files = set(hub.files("org/trained"))
    model = {path.relative_to(folder / "model").as_posix() for path in (folder / "model").rglob("*") if path.is_file()}
    assert files - {"README.md", ".gitattributes"} - {name for name in files if name.startswith("images/")} == model
    assert not (folder / "out" / "training_args.bin").exists() and (folder / "out" / "training_args.json").is_file()


def test_the_card_tells_what_was_trained_and_keeps_what_was_written(trained):
    hub, _ = trained
    card = ModelCard(hub.files("org/trained")["README.md"].decode())
    assert card.data.base_model == "org/base" and card.data.license == "apache-2.0" and "wordnet" in card.data.tags
    assert "Written by hand." in card.text and 'from_pretrained("org/trained"' in card.text


def test_checkpoints_are_pushed_where_they_are_asked_for(trained, tmp_path):
    hub, _ = trained
    options = {**OPTIONS, "hub_model_id": "org/resumable", "hub_strategy": "checkpoint"}
    hub.run(TRAIN, tmp_path, json.dumps(options), project=True)
    assert "last-checkpoint/trainer_state.json" in hub.files("org/resumable")


def test_a_training_that_could_not_be_published_does_not_begin(trained, tmp_path):
    hub, folder = trained
    done = hub.run(TRAIN, tmp_path, json.dumps(OPTIONS), folder / "base", project=True, check=False)
    assert (
        done.returncode != 0
        and "others cannot load" in done.stderr
        and not (tmp_path / "out" / "checkpoint-2").exists()
    )
