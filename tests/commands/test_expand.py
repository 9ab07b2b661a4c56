"""Expanding a dataset's questions from the command line: the file it writes, resuming, and where the model is."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from amer.baselines import chat as chats
from amer.commands import expand as command
from amer.data import RetrievalDataset, save_dataset_dir
from tests.commands.running import amer

QUESTIONS = ["bank?", "light?", "plane?"]
REPLIES = {"bank?": "river, money", "light?": "Light is what makes us see all the things around us.", "plane?": "air"}


class Scripted:
    name = "scripted"

    def __init__(self) -> None:
        self.asked = 0

    def reply(self, prompts: list[str]) -> list[str]:
        self.asked += len(prompts)
        return [REPLIES[prompt.rsplit(" ", 1)[1]] for prompt in prompts]


@pytest.fixture
def chat(monkeypatch):
    """Stands in for every chat model; remembers what it was asked to be."""
    scripted = Scripted()

    def load(*arguments: object) -> Scripted:
        scripted.arguments = arguments
        return scripted

    monkeypatch.setattr(command, "load_chat", load)
    return scripted


@pytest.fixture
def save(tmp_path):
    def save(**columns) -> str:
        split = RetrievalDataset(["q0", "q1", "q2"], [[["d"]]] * 3, [[]] * 3, **columns)
        save_dataset_dir(tmp_path / "dataset", {"validation": split}, {"source": "toy"})
        return str(tmp_path / "dataset")

    return save


def test_the_keywords_are_written_and_prose_is_counted(save, chat, tmp_path, capsys):
    arguments = ["--dataset", save(queries=QUESTIONS), "--split", "validation", "--output", str(tmp_path / "out")]
    amer("expand", *arguments, "--model", "some/model", "--max-new-tokens", 7)
    assert chat.arguments == ("some/model", None, 7)
    assert pq.read_table(tmp_path / "out" / "expanded.parquet").to_pylist() == [
        {"query_id": "q0", "query": "bank? river, money", "keywords": ["river", "money"], "prose": False}
        | {"reply": REPLIES["bank?"]},
        {"query_id": "q1", "query": "light?", "keywords": [], "reply": REPLIES["light?"], "prose": True},
        {"query_id": "q2", "query": "plane? air", "keywords": ["air"], "reply": "air", "prose": False},
    ]
    assert "3 questions, 1 of them unchanged" in " ".join(capsys.readouterr().out.split())
    written = (tmp_path / "out" / "expanded.parquet").read_bytes()
    amer("expand", *arguments, "--model", "some/model")
    assert chat.asked == 3
    assert (tmp_path / "out" / "expanded.parquet").read_bytes() == written


def test_a_split_that_is_not_there_or_holds_no_text_is_refused(save, chat, tmp_path):
    folder = save(input_vectors=np.ones((3, 4), dtype=np.float32))
    arguments = ["--dataset", folder, "--output", str(tmp_path / "out"), "--model", "some/model"]
    with pytest.raises(ValueError, match="'test': choose from validation"):
        amer("expand", *arguments)
    with pytest.raises(ValueError, match="are vectors"):
        amer("expand", *arguments, "--split", "validation")
    assert chat.asked == 0 and not (tmp_path / "out").exists()


def test_a_model_runs_here_or_behind_an_endpoint(monkeypatch):
    chat = command.load_chat("gpt-x", "http://localhost:8000/v1", 7)
    assert isinstance(chat, chats.EndpointChat) and chat.name == "gpt-x"
    monkeypatch.setattr(chats, "LocalChat", lambda *arguments: arguments)
    monkeypatch.setattr("amer.offline.resolve_model", lambda name: f"folder of {name}")
    assert command.load_chat("some/model", None, 7) == ("folder of some/model", "some/model", 7)
