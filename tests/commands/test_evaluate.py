"""`amer evaluate`: the model with several m, the encoder and the baselines, all on the same questions, timed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
import typer

from amer.commands import evaluate as command
from amer.corpus import DocumentEncoder, write_store
from amer.data import RetrievalDataset, save_dataset_dir
from amer.hub_cards import model_card
from modeling_amer import AMERConfig
from tests.commands.running import amer
from tests.conftest import DIM, build, build_mini, tiny_tokenizer

pytest.importorskip("sentence_transformers")
QUESTIONS = [f"question {'x' * number}" for number in range(12)]


@pytest.fixture(scope="module")
def house(llama, tmp_path_factory) -> SimpleNamespace:
    """A store of 30 texts by a tiny encoder, twelve questions, and three models: anchored, not anchored, of one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    folder = tmp_path_factory.mktemp("house")
    torch.manual_seed(0)
    embedding = StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=DIM)
    SentenceTransformer(modules=[embedding], device="cpu").save(str(folder / "encoder"))
    encoder = DocumentEncoder(str(folder / "encoder"), device="cpu")
    texts = [f"text {chr(97 + number % 26)} {'y' * number}" for number in range(30)]
    ids = [f"d{number}" for number in range(30)]
    documents = pa.table({"id": ids, "title": [""] * 30, "text": texts})
    write_store(folder / "store", documents, encoder.encode_documents(documents), encoder.identity)
    targets = [[[f"d{(2 * number + step) % 30}"] for step in range(2)] for number in range(12)]
    split = RetrievalDataset([f"q{n}" for n in range(12)], targets, [[]] * 12, QUESTIONS)
    save_dataset_dir(folder / "questions", {"test": split}, {"source": "Twelve questions"})
    kinds = {"model": {"anchored": True}, "plain": {}, "single-query": {"anchored": True, "num_query_vectors": 1}}
    for name, kind in kinds.items():
        build(llama, document_encoder=encoder.identity, **kind).save_pretrained(folder / name)
    return SimpleNamespace(folder=folder, arguments=["--dataset", f"{folder}/questions", "--store", f"{folder}/store"])


def run(house: SimpleNamespace, output: Path, *arguments: str) -> dict:
    where = ["--model", f"{house.folder}/model", "--output", str(output), "--k", "2", "--k", "5", "--device", "cpu"]
    amer("evaluate", *house.arguments, *where, *arguments)
    return json.loads((output / "results.json").read_text())


def test_baselines_are_references_on_the_same_questions(house, tmp_path):
    baselines = [f"{house.folder}/plain", f"{house.folder}/single-query"]
    results = run(house, tmp_path, *(part for folder in baselines for part in ("--baseline", folder)))
    systems = results["systems"]
    assert list(systems) == [
        "off-the-shelf", "plain", "single-query", "AMER, m = 1", "AMER, m = 2", "AMER, m = 3"
    ]  # fmt: skip
    assert [system["searches_per_query"] for system in systems.values()] == [1, 3, 1, 1, 2, 3]
    assert results["references"] == ["off-the-shelf", "plain", "single-query"] and results["queries"] == 12
    assert list(systems["AMER, m = 3"]["metrics"]["mrecall@5"]["whole"]["against"]) == results["references"]
    assert all(system["seconds_per_query"] > 0 for system in systems.values())
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "report.md", "by_diversity.png"}


def test_the_results_are_all_that_a_card_needs(house, tmp_path):
    results = run(house, tmp_path, "--baseline", f"{house.folder}/single-query")
    assert results["metadata"]["system"] == "AMER, m = 3" and results["metadata"]["dataset"] == "Twelve questions"
    assert results["metadata"]["corpus"] == "30 documents" and results["metadata"]["split"] == "test"
    assert results["metadata"]["baseline single-query"] == "trained for one query vector, anchored, objective matched"
    card = model_card(AMERConfig.from_pretrained(house.folder / "model"), "org/amer", report=results)
    milliseconds = 1000 * results["systems"]["AMER, m = 3"]["seconds_per_query"]
    assert f"3 searches of the index and {milliseconds:.1f} ms" in card and "- machine: " in card
    assert str(house.folder) not in card


def test_without_baselines_the_encoder_and_one_vector_are_the_references(house, tmp_path):
    results = run(house, tmp_path, "--num-query-vectors", "2")
    assert list(results["systems"]) == ["off-the-shelf", "AMER, m = 2", "AMER, m = 3"]  # its own m in any case
    assert results["references"] == ["off-the-shelf", "AMER, m = 2"]


def test_what_the_encoder_took_counts_for_those_who_read_its_vectors(house, tmp_path, monkeypatch):
    load = command.load_dataset
    monkeypatch.setattr(command, "load_dataset", lambda *arguments: (load(*arguments)[0], 1000.0))
    systems = run(house, tmp_path, "--baseline", f"{house.folder}/plain")["systems"]
    assert {name for name, system in systems.items() if system["seconds_per_query"] < 1000} == {"plain"}


def test_data_may_be_names_on_the_hub(house, tmp_path, monkeypatch):
    found = {"org/questions@v1": house.folder / "questions", "org/store": house.folder / "store"}
    for module in ("amer.hub", "amer.search.searcher"):
        monkeypatch.setattr(f"{module}.pull_folder", lambda name, **options: found[name])
    where = ["--dataset", "org/questions@v1", "--store", "org/store", "--num-query-vectors", "3"]
    metadata = run(house, tmp_path, *where)["metadata"]
    assert (metadata["dataset_id"], metadata["dataset"]) == ("org/questions", "Twelve questions")


@pytest.mark.parametrize("baselines", [["a/x", "b/x"], ["a", "b", "c"], ["off-the-shelf"]])
def test_baselines_that_cannot_be_told_apart_are_refused_at_once(baselines):
    required = ["--model", "m", "--dataset", "d", "--store", "s", "--output", "o"]
    given = (part for name in baselines for part in ("--baseline", name))
    with pytest.raises(typer.BadParameter, match="up to two models whose folders have different names"):
        amer("evaluate", *required, *given)


def test_a_split_that_is_not_there_is_named(house, tmp_path):
    with pytest.raises(ValueError, match="no split 'train': choose from test"):
        run(house, tmp_path, "--split", "train")


def test_off_the_shelf_is_the_encoder_itself(house, tmp_path):
    systems = run(house, tmp_path)["systems"]
    encoder = DocumentEncoder(str(house.folder / "encoder"), device="cpu")
    from amer.corpus import DocumentStore
    from amer.data import load_dataset_dir
    from amer.evaluation import evaluate_embeddings
    from amer.search import ExactIndex

    index = ExactIndex(DocumentStore.open(house.folder / "store"))
    questions = load_dataset_dir(house.folder / "questions")["test"]
    expected = evaluate_embeddings(encoder.encode_queries(QUESTIONS)[:, None], questions, index, "x", (2, 5))
    for metric, values in expected.values.items():
        assert systems["off-the-shelf"]["metrics"][metric]["whole"]["mean"] == pytest.approx(np.mean(values))


def test_an_index_that_was_built_gives_the_figures_of_exact_search(house, tmp_path):
    from amer.corpus import DocumentStore
    from amer.search import FaissIndex

    FaissIndex.build(DocumentStore.open(house.folder / "store"), tmp_path / "index", "flat", show_progress_bar=False)
    exact, indexed = (
        run(house, tmp_path / name, *options)["systems"]
        for name, options in (("exact", []), ("indexed", ["--index", str(tmp_path / "index")]))
    )
    for name, system in exact.items():
        assert indexed[name]["metrics"] == system["metrics"]


def test_marked_parts_and_a_model_that_chooses_m_have_rows_of_their_own(tiny_encoder, tmp_path):
    encoder = DocumentEncoder(tiny_encoder, device="cpu")
    texts = ["river", "bank", "a b", "spring"]
    documents = pa.table({"id": ["d0", "d1", "d2", "d3"], "title": [""] * 4, "text": texts})
    write_store(tmp_path / "store", documents, encoder.encode_documents(documents), encoder.identity)
    queries, spans = ["river and bank", "a, b"] * 3, [[[0, 5], [10, 14]], []] * 3
    split = RetrievalDataset(
        [f"q{n}" for n in range(6)], [[["d0"], ["d1"]], [["d2"]]] * 3, [[]] * 6, queries, spans=spans
    )
    save_dataset_dir(tmp_path / "questions", {"test": split}, {"source": "Six questions"})
    build_mini(tiny_encoder, num_query_vectors=2).save_pretrained(tmp_path / "model")
    build_mini(tiny_encoder, num_query_vectors=1, max_query_vectors=1).save_pretrained(tmp_path / "one")
    where = ["--model", tmp_path / "model", "--dataset", tmp_path / "questions", "--store", tmp_path / "store"]
    options = ["--baseline", tmp_path / "one", "--k", "2", "--device", "cpu", "--output", tmp_path / "out"]
    amer("evaluate", *where, *options)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    systems = results["systems"]
    assert list(systems) == [
        "off-the-shelf", "one", "AMER, m = 1", "AMER, m = 2", "AMER, m of its choice", "split by rule",
        "told the split",
    ]  # fmt: skip
    assert [systems[name]["searches_per_query"] for name in ("split by rule", "told the split")] == [2, 1.5]
    assert systems["told the split"]["metrics"]["recall@2"]["whole"]["mean"] == 1
    assert results["metadata"]["system"] == "AMER, m of its choice"
    assert results["references"] == ["off-the-shelf", "one"]
