"""One line from names to a searcher: what it opens, and what it refuses."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import amer
from amer.corpus import DocumentStore, write_store
from amer.search import ExactIndex, FaissIndex, Searcher
from amer.search import searcher as searcher_module
from tests.conftest import DIM, build

ENCODER = {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}
TEXTS = ["a bank of a river", "a bank lends money", "a spring of water", "a coil of metal"]


class ToyEncoder:
    """A unit vector that follows from the words of a text."""

    identity = ENCODER

    def encode_queries(self, texts, batch_size=256):
        vectors = np.zeros((len(texts), DIM), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                vectors[row, sum(map(ord, word)) % DIM] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_documents(self, documents):
        return self.encode_queries(documents.column("text").to_pylist())


@pytest.fixture
def opened_encoders(monkeypatch) -> list:
    """Identity, device, trust_remote_code and token of every encoder that is opened; each is a `ToyEncoder`."""
    opened: list = []

    def from_identity(identity, device=None, trust_remote_code=False, token=None):
        opened.append((identity, device, trust_remote_code, token))
        return ToyEncoder()

    monkeypatch.setattr(searcher_module.DocumentEncoder, "from_identity", from_identity)
    return opened


@pytest.fixture
def folders(llama, tmp_path) -> dict[str, Path]:
    """A saved plain model, a saved anchored one, and a store."""
    for name, anchored in (("plain", False), ("anchored", True)):
        build(llama, anchored=anchored, document_encoder=ENCODER).save_pretrained(tmp_path / name)
    table = pa.table({"id": list("abcd"), "title": [""] * 4, "text": TEXTS})
    write_store(tmp_path / "store", table, ToyEncoder().encode_documents(table), ENCODER, "float32")
    return {name: tmp_path / name for name in ("plain", "anchored", "store")}


def test_folders_give_the_searcher_that_its_parts_give(folders, opened_encoders):
    searcher = Searcher.from_pretrained(
        folders["anchored"], folders["store"], device="cpu", trust_remote_code=True, token="hf_1"
    )
    assert opened_encoders == [(ENCODER, "cpu", True, "hf_1")]
    by_hand = Searcher(searcher.model, ExactIndex(DocumentStore.open(folders["store"])), ToyEncoder())
    assert searcher.search(["bank", "spring water"], k=4) == by_hand.search(["bank", "spring water"], k=4)


def test_a_model_without_an_anchor_opens_no_encoder(folders, opened_encoders):
    searcher = Searcher.from_pretrained(folders["plain"], folders["store"])
    assert searcher.encoder is None and opened_encoders == []
    assert len(searcher.search("bank", k=4)[0]) == 4


def test_opened_parts_are_taken_as_they_are(folders, opened_encoders):
    first = Searcher.from_pretrained(folders["plain"], folders["store"])
    again = Searcher.from_pretrained(first.model, first.store, first.index)
    assert (again.model, again.store, again.index) == (first.model, first.store, first.index)


def test_the_folder_of_an_index_is_opened(folders, opened_encoders, tmp_path):
    FaissIndex.build(DocumentStore.open(folders["store"]), tmp_path / "index", "flat")
    searcher = Searcher.from_pretrained(folders["plain"], folders["store"], tmp_path / "index")
    assert isinstance(searcher.index, FaissIndex)


def test_what_is_not_there_is_named(folders):
    with pytest.raises(OSError, match="nowhere"):
        Searcher.from_pretrained(folders["plain"], folders["store"].parent / "nowhere")
    with pytest.raises(OSError, match="nothing"):
        Searcher.from_pretrained(folders["plain"].parent / "nothing", folders["store"])


def test_lines_of_text_are_searched_at_once(folders, opened_encoders):
    searcher = Searcher.from_documents(folders["anchored"], TEXTS, token="hf_1")
    assert [(identity, token) for identity, _, _, token in opened_encoders] == [(ENCODER, "hf_1")]
    hits = searcher.search("a spring of water", k=4)[0]
    assert sorted(hit.id for hit in hits) == ["0", "1", "2", "3"]
    assert {hit.text for hit in hits} == set(TEXTS)


def test_a_table_keeps_its_ids_and_metadata(folders):
    table = pa.table({"id": ["x", "y"], "title": ["X", "Y"], "text": TEXTS[:2], "year": [1990, 2000]})
    searcher = Searcher.from_documents(folders["plain"], table, encoder=ToyEncoder())
    (hit,) = searcher.search("bank", k=2, filter="year > 1995")[0]
    assert (hit.id, hit.title, hit.metadata) == ("y", "Y", {"year": 2000})


def test_the_temporary_folder_goes_with_the_searcher(folders):
    searcher = Searcher.from_documents(folders["plain"], TEXTS, encoder=ToyEncoder())
    folder = searcher.store.path
    assert folder.is_dir()
    del searcher
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ("one text", TypeError, "pass a list"),
        (["a", None], TypeError, "document 1 is of type NoneType"),
        ([], ValueError, "no documents"),
    ],
)
def test_documents_that_are_no_texts_are_refused(folders, documents, error, message):
    with pytest.raises(error, match=message):
        Searcher.from_documents(folders["plain"], documents, encoder=ToyEncoder())


def test_a_model_that_names_no_encoder_needs_one(llama):
    with pytest.raises(ValueError, match="pass encoder="):
        Searcher.from_documents(build(llama), TEXTS)


def test_the_face_of_the_package_gives_what_it_lists():
    assert amer.Searcher is Searcher
    assert all(getattr(amer, name) is not None for name in amer.__all__)
