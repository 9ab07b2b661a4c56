"""Encoding questions from the command line: two real processes of which one dies, text and JSON Lines, datasets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import amer.corpus
from amer.commands.encode import read_questions
from amer.data import RetrievalDataset, save_dataset_dir
from amer.files import read_json
from amer.search import load_query_embeddings
from modeling_amer import AMERModel
from tests.commands.running import amer as run_command
from tests.conftest import DIM, SPLITS, build, build_mini

ROOT = Path(__file__).parents[2]
QUESTIONS = [f"question {row} {'long ' * (row * 5 % 7)}" for row in range(18)]
ENCODER = {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}
# Where there is no GPU, --multi-gpu is what makes accelerate start as many processes as it was asked for.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi-gpu", "--num-processes", "2"]
DYING = """
import os, signal, sys, time
from amer.commands import main
from amer.corpus.shards import Shards

write = Shards.write

def write_and_die(self, index, vectors):
    write(self, index, vectors)
    if index == 1:
        while not self.file(0).is_file():  # the other process is at work too
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

Shards.write = write_and_die
main(["encode", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def model(llama, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    build(llama).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def questions(tmp_path) -> str:
    (tmp_path / "questions.txt").write_text("\n".join(QUESTIONS) + "\n")
    return str(tmp_path / "questions.txt")


def encode(model: str, output: Path, *arguments: str) -> np.ndarray:
    run_command("encode", "--model", model, "--output", output, *arguments, "--device", "cpu")
    return load_query_embeddings(output)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.distributed
@pytest.mark.kill
def test_two_processes_of_which_one_dies_leave_what_another_run_finishes(model, questions, tmp_path):
    output, sizes = tmp_path / "out", ("--questions", questions, "--shard-size", "4", "--batch-size", "3")
    (tmp_path / "dying.py").write_text(DYING)
    launched = subprocess.run(
        [*LAUNCH, str(tmp_path / "dying.py"), "--model", model, "--output", str(output), *sizes],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert launched.returncode != 0 and "processes: 2" in launched.stdout, launched.stdout + launched.stderr
    there = {int(file.name.split("-")[1]) for file in output.glob("*.npy")}
    assert {0, 1} <= there <= {0, 1, 2, 4}  # 3 is the dead one's
    with pytest.raises(FileNotFoundError, match="to resume"):
        load_query_embeddings(output)
    encode(model, output, *sizes)
    encode(model, tmp_path / "unbroken", *sizes)
    assert contents(output) == contents(tmp_path / "unbroken")


def test_text_and_json_lines_give_the_questions_in_their_order(model, questions, tmp_path):
    lines = [json.dumps({"query": question, "id": row}) for row, question in enumerate(QUESTIONS)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    text = encode(model, tmp_path / "text", "--questions", questions, "--num-query-vectors", "2")
    json_lines = encode(model, tmp_path / "json", "--questions", str(tmp_path / "questions.jsonl"))
    assert json_lines.shape == (18, 3, DIM)
    np.testing.assert_allclose(text, json_lines[:, :2], atol=1e-6)
    expected = AMERModel.from_pretrained(model).encode_query(QUESTIONS)
    np.testing.assert_allclose(json_lines, expected, atol=1e-5)


def test_a_question_may_hold_any_character_but_the_end_of_a_line(tmp_path):
    (tmp_path / "questions.txt").write_bytes("\ufeffone\u2028line\r\n\x0bthe second\x85 \n".encode())
    assert read_questions(tmp_path / "questions.txt") == ["one\u2028line", "\x0bthe second\x85 "]


def test_lines_of_white_space_are_no_questions(tmp_path):
    (tmp_path / "q.txt").write_text("one\n\n \t\ntwo\r\r\n\n")
    (tmp_path / "q.jsonl").write_text('{"query": "one"}\n\n  \n{"query": "two"}\n\n')
    assert read_questions(tmp_path / "q.txt") == read_questions(tmp_path / "q.jsonl") == ["one", "two"]
    (tmp_path / "q.jsonl").write_text('{"query": "one"}\n\n{"query": 2}\n')
    with pytest.raises(ValueError, match=r"q\.jsonl, line 3"):
        read_questions(tmp_path / "q.jsonl")


@pytest.mark.parametrize("name", ["q.ndjson", "q.csv", "q", "q.parquet", "q.txt.bz2"])
def test_a_file_of_another_kind_is_not_read_as_text(tmp_path, name):
    (tmp_path / name).write_text('{"query": "bank"}\n')
    with pytest.raises(ValueError, match=rf"{name} must end in one of \.txt, \.jsonl, \.txt\.gz, \.jsonl\.gz"):
        read_questions(tmp_path / name)


def test_a_line_in_another_encoding_is_named(tmp_path):
    (tmp_path / "q.txt").write_bytes("one\ncafé\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"q\.txt, line 2 is not UTF-8"):
        read_questions(tmp_path / "q.txt")


@pytest.mark.parametrize(
    "line", ["bank", '{"query": " "}', '{"query": 7}', '{"query": "\\ud83d"}', '["bank"]', '{"question": "bank"}']
)
def test_a_line_without_a_question_is_named(model, tmp_path, line):
    (tmp_path / "questions.jsonl").write_text(f'{{"query": "bank"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"questions\.jsonl, line 2"):
        encode(model, tmp_path / "out", "--questions", str(tmp_path / "questions.jsonl"))
    assert not (tmp_path / "out").exists()


def test_half_precision_is_of_the_decoder_and_recorded(model, questions, tmp_path):
    half = encode(model, tmp_path / "half", "--questions", questions, "--dtype", "bfloat16")
    whole = encode(model, tmp_path / "whole", "--questions", questions)
    assert read_json(tmp_path / "half" / "query_embeddings.json")["precision"] == "bfloat16"
    assert half.dtype == np.float32 and 1e-5 < np.abs(half - whole).max() < 0.2
    np.testing.assert_allclose(np.linalg.norm(half, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", [SPLITS, {"stop_score": False}], ids=["splits", "token anchors"])
def test_a_model_that_embeds_its_questions_itself_needs_their_text_alone(
    tiny_encoder, questions, dataset, tmp_path, kind
):
    model = build_mini(tiny_encoder, **kind).eval()
    model.save_pretrained(tmp_path / "model")
    folder = dataset(queries=QUESTIONS, input_vectors=np.ones((18, DIM), dtype=np.float32))
    of_file = encode(str(tmp_path / "model"), tmp_path / "file", "--questions", questions)
    of_dataset = encode(str(tmp_path / "model"), tmp_path / "set", "--dataset", folder, "--split", "validation")
    expected = model.encode_query(QUESTIONS, "auto" if model.config.chooses_number else None)
    expected = getattr(expected, "query_embeddings", expected)
    np.testing.assert_allclose(of_file[:, : expected.shape[1]], expected, atol=1e-5)
    np.testing.assert_array_equal(of_file, of_dataset)


@pytest.fixture
def dataset(tmp_path):
    """Saves questions, as text, vectors or both, as the split `validation`."""

    def save(**columns) -> str:
        split = RetrievalDataset([f"q{row}" for row in range(18)], [[["d"]]] * 18, [[]] * 18, **columns)
        save_dataset_dir(tmp_path / "dataset", {"validation": split}, {"source": "toy"})
        return str(tmp_path / "dataset")

    return save


def test_a_split_of_a_dataset_is_encoded_as_the_model_reads_it(llama, model, dataset, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((18, DIM)).astype(np.float32)
    folder = dataset(queries=QUESTIONS, input_vectors=vectors)
    text = encode(model, tmp_path / "text", "--dataset", folder, "--split", "validation")
    np.testing.assert_allclose(text, AMERModel.from_pretrained(model).encode_query(QUESTIONS), atol=1e-5)
    other = build(llama, reads_text=False)
    other.save_pretrained(tmp_path / "other")
    embeddings = encode(str(tmp_path / "other"), tmp_path / "vectors", "--dataset", folder, "--split", "validation")
    np.testing.assert_allclose(embeddings, other.encode_query(input_vectors=vectors), atol=1e-5)


def test_a_split_that_is_not_there_or_cannot_be_read_is_refused(model, dataset, tmp_path):
    folder = dataset(input_vectors=np.ones((18, DIM), dtype=np.float32))
    with pytest.raises(ValueError, match="'test': choose from validation"):
        encode(model, tmp_path / "out", "--dataset", folder)
    with pytest.raises(ValueError, match="are vectors, but this model reads text"):
        encode(model, tmp_path / "out", "--dataset", folder, "--split", "validation")


def test_an_anchored_model_loads_the_document_encoder_it_names(llama, questions, tmp_path, monkeypatch):
    class ToyEncoder:
        @classmethod
        def from_identity(cls, identity: dict, device: str, trust_remote_code: bool) -> ToyEncoder:
            assert (device, trust_remote_code) == ("cpu", True)
            encoder = cls()
            encoder.identity = identity
            return encoder

        def encode_queries(self, texts: list[str], batch_size: int) -> np.ndarray:
            return np.eye(DIM, dtype=np.float32)[[len(text) % DIM for text in texts]]

    monkeypatch.setattr(amer.corpus, "DocumentEncoder", ToyEncoder)
    anchored = build(llama, anchored=True, document_encoder=ENCODER)
    anchored.save_pretrained(tmp_path / "model")
    given = ("--questions", questions, "--trust-remote-code")
    embeddings = encode(str(tmp_path / "model"), tmp_path / "out", *given)
    vectors = torch.eye(DIM)[[len(question) % DIM for question in QUESTIONS]]
    np.testing.assert_allclose(embeddings, anchored.encode_query(QUESTIONS, input_vectors=vectors), atol=1e-5)
