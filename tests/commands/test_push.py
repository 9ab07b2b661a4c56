"""Publishing from the command line: what a dry run says, what goes to the Hub, what is refused, what stays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import typer
from safetensors import safe_open
from transformers import AutoModel

import amer.evaluation
from amer.corpus import write_store
from amer.data import RetrievalDataset, save_dataset_dir
from modeling_amer import AMERModel
from tests.commands.running import amer as run_command
from tests.conftest import build, save_tiny_base
from tests.hub.conftest import loopback_hub

METRIC = Path(amer.evaluation.__file__).parent / "metrics" / "mrecall"
QUESTIONS = ["bank", "a longer question"]
MINE = "## Written by hand\n\nDo not touch.\n"
SCRIPT = """
import json, sys
from amer.commands.app import app
for arguments in map(json.loads, sys.argv[1:]):
    try:
        app(["--debug", "push", *arguments], standalone_mode=False)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " "))
"""
LOAD = """
import sys, numpy as np
from transformers import AutoModel
for name, revision, file in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    model = AutoModel.from_pretrained(name, revision=revision, trust_remote_code=True, verify=True)
    np.save(file, model.encode_query(["bank", "a longer question"]).numpy())
"""


@pytest.fixture
def hub(tmp_path_factory):
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def run(hub, *command_lines, **env):
    """What `amer push` printed for each command line, all in one process."""
    lines = [json.dumps([str(argument) for argument in arguments]) for arguments in command_lines]
    return hub.run(SCRIPT, *lines, project=True, **env).stdout


@pytest.fixture
def dataset(tmp_path):
    split = RetrievalDataset(query_ids=["a"], targets=[[["d1"], ["d2"]]], answers=[[]], queries=["bank"])
    save_dataset_dir(tmp_path / "senses", {"test": split}, {"source": "a test", "licence": "CC0-1.0"})
    return tmp_path / "senses"


@pytest.fixture
def store(tmp_path):
    documents = pa.table({"id": ["d1", "d2", "d3"], "title": [""] * 3, "text": ["bank", "mouse", "spring"]})
    return write_store(tmp_path / "store", documents, np.eye(3, 8), {"name": "org/encoder"}, shard_size=2).path


@pytest.fixture
def base(tmp_path):
    return save_tiny_base(tmp_path / "base", "llama")


@pytest.fixture
def model(base, tmp_path):
    """A trained adapter in the folder that a training leaves behind."""
    build(base).save_pretrained(tmp_path / "model")
    for name in ("checkpoint-5/model.safetensors", "training_args.json", "train.log", "rng_state.pth"):
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_text("left over")
    return tmp_path / "model"


# ------------------------------------------------------------------------------------------------------------- dry run


def test_a_dry_run_lists_files_and_sizes_and_makes_no_request(hub, dataset, store, model, base):
    hub.seed("org/tiny", Path(base))
    hub.run("from huggingface_hub import snapshot_download; snapshot_download('org/tiny')")  # the base is in the cache
    hub.requests.clear()
    options = ("--dry-run", "--branch", "dev", "--tag", "v1")
    text = run(
        hub,
        ("dataset", dataset, "org/senses", *options),
        ("store", store, "org/store", "--dry-run"),
        ("metric", METRIC, "org/mrecall", "--dry-run", "--public"),
        ("model", model, "org/amer", "--base-model", "org/tiny", "--dry-run"),
        ("model", model, "org/merged", "--merge", "--dry-run"),
        HF_TOKEN=None,
    )
    assert hub.requests == []
    assert "dataset org/senses (private if created), branch dev, tag v1\n" in text
    assert "dataset org/store (private if created), branch main\n" in text
    assert "space org/mrecall (public if created), branch main\n" in text
    lines = text.splitlines()
    for path in (dataset / "test.parquet", store / "embeddings-00001-of-00002.npy", METRIC / "mrecall.py"):
        assert any(path.name in line and f" {path.stat().st_size:,} " in line for line in lines)
    assert sum("README.md" in line for line in lines) == 5
    assert text.count(" model.safetensors ") == 2 and "adapter/" not in text
    assert not any(name in text for name in ("checkpoint", "train", "rng_state"))


# --------------------------------------------------------------------------------------------- what goes to the Hub


def test_an_adapter_goes_with_the_name_and_commit_of_its_base_and_comes_back_bit_identical(hub, model, base, tmp_path):
    pin = hub.seed("org/tiny", Path(base))
    hub.seed("org/amer", {"README.md": f"---\nlicense: mit\n---\n\n{MINE}".encode()}, private=True)
    options = ("--base-model", "org/tiny", "--branch", "dev", "--tag", "v1", "--message", "First reading")
    assert "/org/amer/commit/" in run(hub, ("model", model, "org/amer", *options))
    repo, files = hub.repo("org/amer"), hub.files("org/amer", "v1")
    assert set(hub.files("org/amer", "main")) == {".gitattributes", "README.md"}
    assert repo.tags["v1"] == repo.branches["dev"] and repo.head("dev").title == "First reading"
    config = json.loads(files["config.json"])
    assert (config["base_model_name_or_path"], config["base_model_revision"]) == ("org/tiny", pin)
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert not any("checkpoint" in path or path.endswith((".pth", ".log")) for path in files)
    card = files["README.md"].decode()
    assert MINE in card and "license: mit" in card and "base_model: org/tiny" in card
    hub.seed("org/tiny", {"model.safetensors": b"moved on"})
    hub.run(LOAD, "org/amer", "v1", tmp_path / "vectors.npy")
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), AMERModel.from_pretrained(model).encode_query(QUESTIONS))


def test_a_merged_model_holds_every_weight_and_nothing_of_the_adapter_is_left(hub, model, base, tmp_path):
    hub.seed("org/tiny", Path(base))
    run(hub, ("model", model, "org/amer", "--base-model", "org/tiny"))
    assert hub.repo("org/amer").private
    earlier = {"adapter/adapter_model.safetensors": b"an export for PEFT, or of a push up to 0.1.0"}
    hub.seed("org/amer", earlier, private=True)
    run(hub, ("model", model, "org/amer", "--merge"))
    repo, files = hub.repo("org/amer"), hub.files("org/amer")
    assert repo.private and len(repo.history(repo.head("main"))) == 4
    assert "adapter/adapter_model.safetensors" in hub.files("org/amer", repo.head("main").parent)
    assert not any(path.startswith("adapter/") for path in files)
    assert json.loads(files["config.json"])["base_model_name_or_path"] is None
    assert not any(str(tmp_path).encode() in content for content in files.values())
    (tmp_path / "merged.safetensors").write_bytes(files["model.safetensors"])
    with safe_open(tmp_path / "merged.safetensors", "pt") as weights:
        assert "backbone.embed_tokens.weight" in weights.keys()
    hub.run(LOAD, "org/amer", "main", tmp_path / "vectors.npy")
    here = AMERModel.from_pretrained(model).encode_query(QUESTIONS)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "vectors.npy")), here, atol=1e-5, rtol=0)


def test_a_new_repository_is_private_unless_public_is_said(hub, dataset):
    run(hub, ("dataset", dataset, "org/a"), ("dataset", dataset, "org/b", "--public"))
    assert hub.repo("org/a", "dataset").private and not hub.repo("org/b", "dataset").private


def test_the_datasets_library_reads_datasets_and_the_texts_of_stores(hub, dataset, store):
    pytest.importorskip("datasets")
    run(hub, ("dataset", dataset, "org/senses"), ("store", store, "org/store"))
    load = """
    from datasets import load_dataset
    print(load_dataset("org/senses", split="test")["targets"][:])
    print(load_dataset("org/store")["corpus"]["text"][:])
    """
    assert hub.run(load).stdout.splitlines() == ["[[['d1'], ['d2']]]", "['bank', 'mouse', 'spring']"]


def test_what_was_written_by_hand_stays(hub, dataset, store):
    (dataset / "README.md").write_text(f"---\nlanguage: en\n---\n\n{MINE}")
    run(hub, ("dataset", dataset, "org/senses"), ("store", store, "org/store"))
    first = hub.files("org/senses", repo_type="dataset")["README.md"]
    assert MINE.encode() in first and b"language: en" in first and b"license: cc0-1.0" in first
    for name in ("org/senses", "org/store"):
        card = hub.files(name, repo_type="dataset")["README.md"]
        hub.seed(name, {"README.md": card + b"\nAdded on the Hub.\r\n"}, repo_type="dataset", private=True)
    run(hub, ("dataset", dataset, "org/senses"), ("store", store, "org/store"))
    senses, documents = (hub.files(name, repo_type="dataset")["README.md"] for name in ("org/senses", "org/store"))
    assert senses == first + b"\nAdded on the Hub.\r\n"
    assert documents.endswith(b"\nAdded on the Hub.\r\n")


# ----------------------------------------------------------------------------------------------------- what is refused


def test_a_base_that_nobody_else_has_or_that_is_another_is_refused(hub, model, base, tmp_path):
    hub.seed("org/other", save_a_slightly_different_base(tmp_path / "other"))
    build(base, lora=None).save_pretrained(tmp_path / "full")
    lines = run(
        hub,
        ("model", model, "org/amer"),
        ("model", model, "org/amer", "--base-model", base),
        ("model", model, "org/amer", "--base-model", "org/other"),
        ("model", model, "org/amer", "--base-model", "org/nothing"),
        ("model", tmp_path / "full", "org/amer", "--merge"),
    ).splitlines()
    local, folder, other, nothing, full = lines
    assert f"belongs to the base {base}, a folder on this machine" in local and "--base-model" in local
    assert f"--base-model {base} is a folder" in folder
    assert "does not reproduce the vectors that were saved with it" in other
    assert re.search(r"largest difference 0\.\d+, smallest cosine 0\.\d+", other)
    assert nothing.startswith("OSError: ") and "org/nothing" in nothing
    assert "holds every weight already: leave out --merge" in full
    assert not [path for method, path in hub.requests if method != "HEAD" and "/org/amer" in path]


def save_a_slightly_different_base(folder):
    """The tiny base with its weights a little off, as another quantisation would leave them."""
    other = AutoModel.from_pretrained(save_tiny_base(folder, "llama"))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.001)
    other.save_pretrained(folder)
    return folder


def test_a_damaged_store_a_missing_folder_and_a_bad_name_are_refused(hub, dataset, store):
    shard = store / "embeddings-00001-of-00002.npy"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\0\1")  # of the right size: the checksum tells
    damaged, missing, bare, kind = run(
        hub,
        ("store", store, "org/store"),
        ("dataset", dataset / "nowhere", "org/senses"),
        ("dataset", dataset, "senses"),
        ("store", dataset, "org/senses"),
    ).splitlines()
    assert "embeddings-00001-of-00002.npy is damaged" in damaged
    assert missing.startswith("FileNotFoundError: ") and "nowhere is not a folder" in missing
    assert bare.startswith("ValueError: 'senses' has no namespace")
    assert "not a finished document store" in kind
    assert {method for method, _ in hub.requests} <= {"GET"}


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--base-model-revision", "v1"], "needs --base-model"), (["--system", "AMER"], "needs --results")],
)
def test_options_that_need_another_say_so(options, message):
    with pytest.raises(typer.BadParameter, match=message):
        run_command("push", "model", "folder", "org/amer", *options)
