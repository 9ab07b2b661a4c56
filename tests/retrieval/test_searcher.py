"""The searcher: questions in, documents out; a model and a store of two spaces never meet."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.retrieval.fusion import mixture
from amer.retrieval.index import ExactIndex
from amer.retrieval.searcher import Hit, Searcher
from amer.retrieval.store import DocumentStore, write_store

ENCODER = {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}


class AxisModel:
    """Reads a question such as "2 0" and emits the unit vectors along axes 2 and 0, for as many as are asked for."""

    def __init__(self, dim: int = 4, anchored: bool = False, document_encoder: dict | None = None) -> None:
        encoder = document_encoder or ENCODER
        self.config = SimpleNamespace(
            document_encoder=encoder, document_dim=dim, anchored=anchored, objective="matched", loss_temperature=0.05
        )
        self.anchors: np.ndarray | None = None

    def encode_query(self, texts, query_vectors=None, num_query_vectors=None, batch_size=64, show_progress_bar=False):
        self.anchors = query_vectors
        axes = torch.tensor([[int(axis) for axis in text.split()] for text in texts])[:, :num_query_vectors]
        return torch.eye(self.config.document_dim)[axes]


class AnchorEncoder:
    identity = ENCODER

    def encode_queries(self, texts, batch_size):
        return np.full((len(texts), 4), 0.5, dtype=np.float32)


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    """Document `a<i>` lies on axis i; `b` between axes 0 and 1."""
    names = ["a0", "a1", "a2", "a3", "b"]
    documents = pa.table({"id": names, "title": [f"title {n}" for n in names], "text": [f"text {n}" for n in names]})
    vectors = np.concatenate([np.eye(4), [[0.8, 0.6, 0, 0]]])
    return write_store(tmp_path / "store", documents, vectors, ENCODER, "float32")


def test_hits_alternate_between_the_query_vectors(store):
    found = Searcher(AxisModel(), ExactIndex(store)).search(["0 2", "1 3"], k=3)
    assert [[hit.id for hit in hits] for hits in found] == [["a0", "a2", "b"], ["a1", "a3", "b"]]
    assert found[0][0] == Hit("a0", 1.0, "title a0", "text a0", 0, 0)
    assert found[1][2][1:] == (pytest.approx(0.6), "title b", "text b", 0, 1)


def test_one_question_may_be_a_plain_string(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    assert searcher.search("0 2", k=3) == searcher.search(["0 2"], k=3)


def test_the_number_of_query_vectors_is_the_callers(store):
    hits = Searcher(AxisModel(), ExactIndex(store)).search("0 2", k=2, num_query_vectors=1)[0]
    assert [(hit.id, hit.found_by, hit.found_at) for hit in hits] == [("a0", 0, 0), ("b", 0, 1)]


def test_a_small_store_gives_fewer_hits_and_a_padded_run(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    assert len(searcher.search("0 2", k=9)[0]) == 5
    assert searcher.run("0 2", k=9).rows[0, 5:].tolist() == [-1] * 4


def test_run_and_search_agree(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    run = searcher.run(["0 2", "3 1"], k=4)
    ids = store.ids.to_pylist()
    assert [[ids[row] for row in rows] for rows in run.rows] == [
        [hit.id for hit in hits] for hits in searcher.search(["0 2", "3 1"], k=4)
    ]


def test_fusion_by_mixture_sees_the_query_vectors_and_the_store(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    hits = searcher.search("0 1", k=2, fusion=partial(mixture, temperature=1.0))[0]
    assert [hit.id for hit in hits] == ["b", "a0"]
    assert hits[0].score == pytest.approx(np.log(np.exp(0.8) + np.exp(0.6)))


def test_an_anchored_model_is_given_the_encoders_embeddings(store):
    model = AxisModel(anchored=True)
    Searcher(model, ExactIndex(store), encoder=AnchorEncoder()).search(["0 2", "1 3"], k=1)
    np.testing.assert_array_equal(model.anchors, np.full((2, 4), 0.5))


def test_a_plain_model_is_not_given_embeddings(store):
    model = AxisModel()
    Searcher(model, ExactIndex(store), encoder=AnchorEncoder()).search("0 2", k=1)
    assert model.anchors is None


@pytest.mark.parametrize(
    "model, message",
    [
        (AxisModel(dim=5), "5 values, the store's 4"),
        (AxisModel(document_encoder={**ENCODER, "name": "other"}), "another document encoder"),
        (AxisModel(anchored=True), "pass encoder"),
    ],
)
def test_models_of_another_space_are_refused(store, model, message):
    with pytest.raises(ValueError, match=message):
        Searcher(model, ExactIndex(store))


def test_the_encoder_of_another_store_is_refused(store):
    encoder = AnchorEncoder()
    encoder.identity = {**ENCODER, "query_prompt": "query: "}
    with pytest.raises(ValueError, match="query_prompt"):
        Searcher(AxisModel(anchored=True), ExactIndex(store), encoder=encoder)


def test_no_question_is_refused(store):
    with pytest.raises(ValueError, match="no question"):
        Searcher(AxisModel(), ExactIndex(store)).search([])
