"""Cards of datasets, stores and the metric: the `datasets` library reads by them, and they say what is there."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import DatasetCard

from amer.corpus import DocumentStore, write_store
from amer.data import RetrievalDataset, save_dataset_dir
from amer.data.wordnet import build_wordnet
from amer.hub_cards import dataset_card, metric_card, store_card, update_card
from amer.hub_cards.updating import split_card

ENCODER = {"name": "org/encoder", "revision": "v1", "document_prompt": "passage: ", "query_prompt": ""}


@pytest.fixture(scope="module")
def senses(tmp_path_factory):
    """A small real dataset directory, with the encoder's vectors beside the questions."""
    folder = tmp_path_factory.mktemp("senses")
    build_wordnet(folder, num_train=30, num_validation=5, num_test=7, corpus_size=200)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DocumentStore:
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    texts = pa.table({"id": list("abcde"), "title": [""] * 5, "text": [f"text {i}" for i in range(5)]})
    return write_store(tmp_path_factory.mktemp("store") / "store", texts, vectors, ENCODER, shard_size=3)


def load(folder, card: str, tmp_path, **options):
    datasets = pytest.importorskip("datasets")
    (folder / "README.md").write_text(card)
    try:
        return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), **options)
    finally:
        (folder / "README.md").unlink()


def test_the_datasets_library_loads_a_dataset_by_its_card(senses, tmp_path):
    folder = senses / "dataset"
    loaded = load(folder, dataset_card(folder, "org/senses"), tmp_path)
    assert {name: len(split) for name, split in loaded.items()} == {"train": 30, "validation": 5, "test": 7}
    assert set(loaded["test"].column_names) == {"query_id", "query", "targets", "answers"}
    assert all(isinstance(cluster, list) for cluster in loaded["train"][0]["targets"])


def test_the_datasets_library_loads_a_stores_texts_by_its_card(store, tmp_path):
    loaded = load(store.path, store_card(store.path, "org/store"), tmp_path, split="corpus")
    assert loaded["id"] == list("abcde") and loaded[4]["text"] == "text 4"


def test_a_dataset_card_says_what_the_files_say(senses):
    folder = senses / "dataset"
    card, info = dataset_card(folder, "org/senses"), json.loads((folder / "dataset.json").read_text())
    data = DatasetCard(card).data
    assert data.pretty_name == "senses" and data.task_categories == ["text-retrieval"]
    assert (data.license, data.license_name, data.size_categories) == ("other", "wordnet-license", ["n<1K"])
    for name, counts in info["splits"].items():
        cells = [f"{counts[key]:,}" for key in ("queries", "targets", "documents")]
        assert f"| {name} | {' | '.join(cells)} | {counts['targets'] / counts['queries']:.2f} |" in card
    assert "Source: WordNet 3.0" in card and "`corpus_size` | `200`" in card and "query_vector" not in card
    example = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL).group(1))
    assert example["targets"] and example["query_id"]


def test_vectors_of_questions_are_said_whose_they_are(tmp_path):
    split = RetrievalDataset(["q"], [[["d"]]], [[]], ["question"], np.ones((1, 4), dtype=np.float32))
    save_dataset_dir(tmp_path / "data", {"test": split}, {"licence": "CC-BY-4.0", "query_vectors": ENCODER})
    card = dataset_card(tmp_path / "data", "org/data")
    assert "[org/encoder](https://huggingface.co/org/encoder) at `v1`, prompt of documents `passage: `" in card
    assert DatasetCard(card).data.license == "cc-by-4.0" and "without its vector" in card
    assert "\n\n\n" not in card and "None" not in card


@pytest.mark.parametrize("info", [{}, {"licence": "none: generated numbers"}])
def test_a_dataset_of_unknown_licence_claims_none(tmp_path, info):
    split = RetrievalDataset(["q"], [[["d"]]], [[]], ["question"])
    save_dataset_dir(tmp_path / "data", {"train": split}, info)
    card = dataset_card(tmp_path / "data", "org/data")
    assert DatasetCard(card).data.license is None
    assert "\n\n\n" not in card and not re.search(r"^## .*\n+(##|<!--)", card, re.MULTILINE)


def test_the_licences_text_is_linked_where_it_lies_in_the_folder(senses):
    (senses / "dataset" / "LICENSE.WordNet").write_text("text")
    try:
        assert DatasetCard(dataset_card(senses / "dataset", "org/senses")).data.license_link == "LICENSE.WordNet"
    finally:
        (senses / "dataset" / "LICENSE.WordNet").unlink()


@pytest.mark.parametrize(
    ("rows", "category"), [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (25_000, "10K<n<100K"), (10**9, "n>1B")]
)
def test_sizes_are_categories_of_the_hub(rows, category):
    from amer.hub_cards.data_cards import _size_category

    assert _size_category(rows) == category


def test_a_store_card_says_who_made_the_vectors(store):
    card = store_card(store.path, "org/store")
    assert "5 documents" in card and "**one** vector of 4 values" in card and "float16" in card and "2 files" in card
    assert "[org/encoder](https://huggingface.co/org/encoder) at `v1`, prompt of documents `passage: `" in card
    name = re.search(r'"(embeddings-.*?)"', card).group(1)
    assert np.load(store.path / name).shape == (3, 4)


@pytest.mark.parametrize("make", [dataset_card, store_card])
def test_a_folder_of_something_else_is_refused(tmp_path, make):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        make(tmp_path, "org/name")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        make(tmp_path, "org/name")


def test_the_metric_is_loaded_by_its_name_on_the_hub():
    card = metric_card("org/mrecall")
    metadata = yaml.safe_load(split_card(card)[0].strip().strip("-"))
    assert metadata["title"] == "MRecall" and "metric" in metadata["tags"]
    assert 'metric = evaluate.load("org/mrecall")\n' in card and "path/to" not in card


def test_every_card_is_written_around_what_people_wrote(senses, store):
    for card in (dataset_card(senses / "dataset", "org/a"), store_card(store.path, "org/b"), metric_card("org/c")):
        updated = update_card("---\nmine: 1\n---\nMine.\n", card)
        assert "Mine.\n" in updated and "mine: 1" in updated and update_card(updated, card) == updated
