"""Questions of several parts, measured end to end with tiny models: every row is what its name says."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from amer.baselines import expansion
from amer.baselines.splitting import RULE, TOLD
from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus
from amer.corpus.documents import open_documents
from amer.data import RetrievalDataset, save_dataset_dir
from amer.files import read_json
from amer.search import ExactIndex
from experiments import parts
from experiments.parts import load_questions, question_groups, read_rows
from experiments.parts_systems import ALONE, AMER, DEEPER, ENCODER, LLM, ONE, ORACLE, PERTURBED
from tests.conftest import build_mini

pytest.importorskip("sentence_transformers")
NATURAL = Path(__file__).resolve().parent.parent / "data" / "natural_compounds.jsonl"
PARTS = ["find the red river", "find the big bank; the small one", "find the cold stone"]
TARGETS = ["d0", "d41", "d98"]


class Splitter:
    """A chat model that gives the question's pieces between " and "."""

    name = "splitter"

    def __init__(self) -> None:
        self.asked = 0

    def reply(self, prompts: list[str]) -> list[str]:
        self.asked += len(prompts)
        questions = [prompt.rpartition("Question: ")[2] for prompt in prompts]
        return ["\n".join(question.split(" and ")) for question in questions]


@pytest.fixture(scope="module")
def house(tiny_encoder, tmp_path_factory) -> SimpleNamespace:
    """A hundred documents, nine questions of one to three parts, and untrained models."""
    folder = tmp_path_factory.mktemp("parts")
    things = product("red blue old new big small fast slow warm cold".split(), "river bank mouse house stone".split())
    documents = [
        {"id": f"d{2 * i}", "title": "", "text": f"all about the {' '.join(t)}"} for i, t in enumerate(things)
    ]
    documents += [{"id": f"d{i}", "title": "", "text": f"number {i}"} for i in range(1, 100, 2)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    encoder = DocumentEncoder.from_identity({"name": tiny_encoder}, "cpu")
    encode_corpus(open_documents(folder / "docs.jsonl"), encoder, folder / "store", show_progress_bar=False)
    texts, spans = [], []
    for count in (1, 2, 3):
        text, own = "", []
        for part in PARTS[:count]:
            text += " and " if text else ""
            own.append([len(text), len(text) + len(part)])
            text += part
        texts.append(text)
        spans.append(own)
    numbers = range(9)
    split = RetrievalDataset(
        [f"q{i}" for i in numbers],
        [[[name] for name in TARGETS[: 1 + i % 3]] for i in numbers],
        [[]] * 9,
        [texts[i % 3] for i in numbers],
        spans=[spans[i % 3] for i in numbers],
    )
    save_dataset_dir(folder / "dataset", {"test": split}, {"source": "tiny"})
    one = build_mini(tiny_encoder, num_query_vectors=1, max_query_vectors=1, stop_score=False)
    one.config.objective = "mixture"
    splits = build_mini(tiny_encoder, splits_questions=True, stop_score=False, emission="autoregressive")
    for name, model in (("one", one), ("amer", splits), ("stop", build_mini(tiny_encoder))):
        model.save_pretrained(folder / name)
    return SimpleNamespace(folder=folder, texts=texts, index=ExactIndex(DocumentStore.open(folder / "store"), "cpu"))


@pytest.fixture(scope="module")
def results(house) -> dict:
    """The whole experiment, with two seeds of AMER and a chat model."""
    chat, folder = Splitter(), house.folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "chat_of", lambda arguments: chat)
        models = ["--amer", str(folder / "amer"), str(folder / "amer"), "--one", str(folder / "one")]
        rows = ["--row", f"by stop score={folder / 'stop'}"]
        where = ["--dataset", str(folder / "dataset"), "--store", str(folder / "store")]
        parts.main([*where, *models, *rows, "--output", str(folder / "out")])
    return {**read_json(folder / "out" / "results.json"), "asked": chat.asked}


def test_every_row_is_there_and_searched_as_its_name_says(results, house):
    systems = results["systems"]
    assert list(systems) == [
        ENCODER,
        RULE,
        LLM,
        ONE,
        DEEPER,
        PERTURBED,
        "one vector, MMR",
        AMER,
        "AMER, m = 4",
        "AMER, averaged",
        "by stop score",
        TOLD,
        ORACLE,
    ]
    for name in (ENCODER, ONE, DEEPER, "one vector, MMR", "AMER, averaged", ORACLE):
        assert systems[name]["searches"] == 1
    for name in (LLM, TOLD, PERTURBED):
        assert systems[name]["searches"] == 2
        assert [systems[name]["groups"][group]["searches"] for group in ("1 part", "2 parts", "3 parts")] == [1, 2, 3]
    assert systems[RULE]["searches"] == pytest.approx((1 + 3 + 4) / 3)  # the second part has a semicolon
    assert systems[AMER]["seeds"] == 2 and systems[AMER]["metrics"]["recall@10"]["deviation"] == 0
    assert all(system["seconds"] > 0 for name, system in systems.items() if name != ORACLE)
    assert {name for name, system in systems.items() if system["alone"]} == {ONE, AMER, "by stop score", LLM}
    assert results["groups"] == {"1 part": 3, "2 parts": 3, "3 parts": 3, "least similar third": 3}


def test_rows_hold_the_figures_of_what_they_are_made_of(results, house):
    systems = results["systems"]
    for metric, entry in systems[TOLD]["metrics"].items():
        assert entry["mean"] == systems[LLM]["metrics"][metric]["mean"]  # it splits without fault
        assert systems[DEEPER]["metrics"][metric]["mean"] >= systems[ONE]["metrics"][metric]["mean"]
    assert systems[ORACLE]["groups"]["1 part"]["recall@10"]["mean"] == 1
    rows, _ = house.index.search(encode(house, house.texts), 10)
    wanted = [house.index.store.rows_of(TARGETS[: 1 + i]) for i in range(3)]
    found = [np.isin(target, own).mean() for own, target in zip(rows[:, 0], wanted, strict=True)]
    assert systems[ENCODER]["metrics"]["recall@10"]["mean"] == pytest.approx(np.mean(found))


def encode(house, texts: list[str]) -> np.ndarray:
    identity = {"name": house.index.store.encoder["name"]}
    return DocumentEncoder.from_identity(identity, "cpu").encode_queries(texts)[:, None]


def test_who_splits_is_judged_by_the_spans(results):
    splitting = results["splitting"]
    assert set(splitting) == {RULE, LLM, AMER, "by stop score"}
    assert splitting[LLM]["number"]["all"]["mean"] == splitting[LLM]["parts"]["mean"] == 1
    assert splitting[RULE]["number"]["1"]["mean"] == 1 and splitting[RULE]["number"]["all"]["mean"] == 1 / 3
    assert splitting[RULE]["parts"]["mean"] == pytest.approx((1 + 1 + 2) / 6)
    assert "parts" not in splitting["by stop score"]


def test_a_second_run_asks_the_chat_model_for_its_time_alone(results, house):
    assert results["asked"] == 3 + min(ALONE, 9) + min(ALONE, 9)  # three different questions; then the times
    chat = Splitter()
    assert expansion.split(house.texts, chat, house.folder / "out" / "replies.jsonl", False)[1] == PARTS[:2]
    assert chat.asked == 0


def test_the_report_has_every_table_and_the_picture(results, house):
    report = (house.folder / "out" / "report.md").read_text(encoding="utf-8")
    headings = [line.removeprefix("## ") for line in report.splitlines() if line.startswith("## ")]
    against = [f"Against {name}" for name in (ONE, RULE, TOLD)]
    assert headings == ["Systems", *against, "By the number of parts", "Questions of one part", "Parts"]
    assert (house.folder / "out" / "recall.png").stat().st_size > 5_000
    assert "(recall.png)" in report and "- questions: 9\n" in report


def test_a_file_of_questions_is_a_dataset(tmp_path):
    questions = load_questions(NATURAL, "test")
    assert len(questions) == 30 and questions.query_ids[0] == "natural_compounds-1"
    start, end = questions.spans[0][1]
    assert questions.queries[0][start:end] == "reserve a few hundred megabytes for a file up front"
    (tmp_path / "own.jsonl").write_text('{"query": "a", "targets": [["b"]]}\n')
    with pytest.raises(ValueError, match=r"own.jsonl, line 1 has query, targets: it must have"):
        load_questions(tmp_path / "own.jsonl", "test")


def test_rows_of_one_name_are_its_seeds():
    assert read_rows(["x=a", "y=b", "x=c"]) == {"x": ["a", "c"], "y": ["b"]}
    for wrong in ("x", "=a", f"{ONE}=a"):
        with pytest.raises(ValueError, match="NAME=DIR"):
            read_rows([wrong])


def test_groups_are_of_the_parts_and_of_the_similarity(house):
    test = load_questions(house.folder / "dataset", "test").link(house.index.store)
    groups = question_groups(test, house.index.store)
    assert groups["2 parts"].tolist() == [False, True, False] * 3
    assert not (groups["least similar third"] & groups["1 part"]).any()


def test_what_a_chat_model_writes_beside_the_parts_is_left_out():
    assert expansion.parts_of("Here are the lines:\n- open a file\n2. read it\nRead it") == ["open a file", "read it"]
    assert len(expansion.parts_of("\n".join(map(str, range(100, 130))))) == 8
    assert expansion.parts_of("Question: how to open a file?\nhow to open a file?") == ["how to open a file?"]
    assert expansion.parts_of(" ") == []
