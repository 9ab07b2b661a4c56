"""The Space of `amer push space`: what is pushed, what is refused, and that it serves its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
import yaml

from amer.corpus import write_store
from amer.hub_cards.space import requirements, write_space
from amer.hub_cards.updating import split_card
from tests.commands.running import amer
from tests.conftest import DIM, build
from tests.hub.conftest import loopback_hub
from tests.serving import serving

ENCODER = {"name": "org/encoder"}
NAMES = ("--model", "org/amer", "--store", "org/store")
EXAMPLE = 'a "quoted" $HOME \\ \N{SNOWMAN}'
PUSH = """
import sys
from amer.commands.app import app
app(["--debug", "push", "space", *sys.argv[1:]], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def hub(llama, tmp_path_factory):
    """A Hub with a model and its store."""
    folder = tmp_path_factory.mktemp("published")
    build(llama, document_encoder=ENCODER).save_pretrained(folder / "model")
    vectors = np.eye(3, DIM, dtype=np.float32)
    documents = pa.table({"id": list("abc"), "title": list("abc"), "text": ["bank", "mouse", "spring"]})
    write_store(folder / "store", documents, vectors, ENCODER, "float32")
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        running.seed("org/amer", folder / "model")
        running.seed("org/store", folder / "store", repo_type="dataset")
        yield running


@pytest.fixture(scope="module")
def space(hub, tmp_path_factory) -> Path:
    """The folder of a Space that was pushed."""
    folder = tmp_path_factory.mktemp("space") / "page"
    hub.run(PUSH, str(folder), "org/page", *NAMES, "--example", EXAMPLE, project=True)
    return folder


def command_of(dockerfile: str) -> list[str]:
    """What the Dockerfile runs."""
    return json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[-1])


@pytest.mark.slow
def test_the_hub_gets_a_docker_space_with_its_card_and_all_the_code(hub, space):
    repo, files = hub.repo("org/page", "space"), hub.files("org/page", repo_type="space")
    assert repo.private and repo.sdk == "docker"
    card = yaml.safe_load(split_card(files["README.md"].decode())[0].strip().strip("-"))
    assert (card["sdk"], card["app_port"], card["title"]) == ("docker", 7860, "page")
    assert card["models"] == ["org/amer"] and card["datasets"] == ["org/store"]
    command = command_of(files["Dockerfile"].decode())
    assert command[-1] == EXAMPLE and command[command.index("--model") + 1] == "org/amer"
    code = {"amer/service/page/index.html", "amer/trainer/__init__.py", "modeling_amer/modeling_amer.py"}
    assert code <= files.keys() and not any("__pycache__" in name or name.startswith("tests") for name in files)


@pytest.mark.slow
def test_a_later_push_replaces_the_code_and_keeps_what_people_added(hub, space):
    hub.seed("org/page", {"amer/gone.py": b"old", "notes.md": b"Mine."}, repo_type="space", private=True)
    hub.run(PUSH, str(space), "org/page", *NAMES, project=True)
    files = hub.files("org/page", repo_type="space")
    assert "amer/gone.py" not in files and files["notes.md"] == b"Mine."
    assert EXAMPLE not in command_of(files["Dockerfile"].decode())


@pytest.mark.slow
def test_a_dry_run_writes_the_folder_and_sends_nothing(hub, tmp_path):
    before = len(hub.requests)
    said = hub.run(PUSH, str(tmp_path / "dry"), "org/dry", *NAMES, "--dry-run", project=True).stdout
    assert len(hub.requests) == before
    with pytest.raises(KeyError):
        hub.repo("org/dry", "space")
    assert "space org/dry (private if created), branch main" in said and "Dockerfile" in said
    assert (tmp_path / "dry" / "Dockerfile").is_file()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("--model", "./model", "--store", "org/store"), "model"),
        (("--model", "org/amer", "--store", "store"), "store"),
    ],
)
def test_a_model_or_store_that_is_not_on_the_hub_is_refused(tmp_path, monkeypatch, names, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=message):
        amer("push", "space", tmp_path / "page", "org/page", *names, "--dry-run")


def test_a_folder_of_something_else_is_never_written(tmp_path):
    (tmp_path / "amer").mkdir()
    (tmp_path / "amer" / "mine.py").write_text("precious")
    with pytest.raises(FileExistsError, match="did not write"):
        write_space(tmp_path, "org/amer", "org/store")
    assert (tmp_path / "amer" / "mine.py").read_text() == "precious"


def test_requirements_are_those_of_serving():
    lines = list(requirements())
    names = {re.split(r"[<>=!\[ ]", line)[0] for line in lines}
    assert {"torch", "transformers", "fastapi", "uvicorn", "sentence-transformers"} <= names
    assert names.isdisjoint({"faiss-gpu", "pytest", "ray", "mteb", "openai"}) and not any(
        ";" in line for line in lines
    )


@pytest.mark.server
@pytest.mark.slow
def test_what_the_dockerfile_runs_serves_the_page_for_what_is_on_the_hub(hub, space):
    pytest.importorskip("uvicorn", reason="needs the extra `serve`")
    python, *arguments = command_of((space / "Dockerfile").read_text())
    assert python == "python"
    arguments[arguments.index("7860")] = "0"
    arguments[arguments.index("0.0.0.0")] = "127.0.0.1"
    with serving(*arguments, cwd=space, **{**hub.env, "PYTHONPATH": str(space)}) as (_, address):
        assert "<title>AMER</title>" in httpx.get(f"{address}/").text
        answer = httpx.post(f"{address}/explore", json={"question": "bank", "k": 2}, timeout=30)
        assert len(answer.json()["hits"]) == 2
