"""The searcher: questions in, documents out; a model and a store of two spaces never meet."""

from __future__ import annotations

import re
import threading
from functools import partial
from itertools import count, islice

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus.store import DocumentStore, write_store
from amer.search import searcher as searcher_module
from amer.search.fusion import max_score, mixture, reciprocal_rank
from amer.search.index import ExactIndex
from amer.search.searcher import Hit, Searcher
from amer.search.showing import hits_table
from modeling_amer import AMERConfig, Part, QueryEmbeddings, WordWeight

ENCODER = {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}


class AxisModel:
    """Reads a question such as "2 0" and emits the unit vectors along axes 2 and 0, for as many as are asked for."""

    def __init__(self, dim: int = 4, anchored: bool = False, document_encoder: dict | None = None) -> None:
        encoder = document_encoder or ENCODER
        self.config = AMERConfig(
            document_encoder=encoder,
            document_dim=dim,
            prompt_template="{query}",
            anchor="vector" if anchored else None,
        )
        self.anchors: np.ndarray | None = None

    def encode_query(self, texts, input_vectors=None, num_query_vectors=None, batch_size=64, show_progress_bar=False):
        self.anchors = input_vectors
        axes = torch.tensor([[int(axis) for axis in text.split()] for text in texts])[:, :num_query_vectors]
        return torch.eye(self.config.document_dim)[axes]


class AnchorEncoder:
    identity = ENCODER

    def encode_queries(self, texts, batch_size):
        return np.full((len(texts), 4), 0.5, dtype=np.float32)


NAMES = ["a0", "a1", "a2", "a3", "b"]
DOCUMENTS = {"id": NAMES, "title": [f"title {n}" for n in NAMES], "text": [f"text {n}" for n in NAMES]}
VECTORS = np.concatenate([np.eye(4), [[0.8, 0.6, 0, 0]]])


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    """Document `a<i>` lies on axis i; `b` between axes 0 and 1."""
    return write_store(tmp_path / "store", pa.table(DOCUMENTS), VECTORS, ENCODER, "float32")


@pytest.fixture
def dated(tmp_path) -> DocumentStore:
    """The same with metadata."""
    documents = pa.table({**DOCUMENTS, "year": [1990, 1991, 1992, 1993, 1994]})
    return write_store(tmp_path / "dated", documents, VECTORS, ENCODER, "float32")


def test_hits_alternate_between_the_query_vectors(store):
    found = Searcher(AxisModel(), ExactIndex(store)).search(["0 2", "1 3"], k=3)
    assert [[hit.id for hit in hits] for hits in found] == [["a0", "a2", "b"], ["a1", "a3", "b"]]
    assert found[0][0] == Hit("a0", 1.0, "title a0", "text a0", 0, 0)
    assert found[1][2][1:6] == (pytest.approx(0.6), "title b", "text b", 0, 1)


class WordModel(AxisModel):
    """Says that vector j stands for word j of the question."""

    def __init__(self) -> None:
        super().__init__()
        self.config.anchor, self.config.token_vectors = "tokens", True

    def attribute(self, question, num_query_vectors=None):
        words = [(found[0], *found.span()) for found in re.finditer(r"\w+", question)]
        one = range(len(words))
        return [[WordWeight(*word, float(j == i)) for i, word in enumerate(words)] for j in one][:num_query_vectors]


def test_hits_say_which_words_found_them_where_they_are_asked_to(store):
    searcher = Searcher(WordModel(), ExactIndex(store))
    found = searcher.search(["0 2", "3 1"], k=2, attribute=True)
    assert [(hit.id, hit.part) for hit in found[0]] == [("a0", "0"), ("a2", "2")]
    assert [(hit.id, hit.part) for hit in found[1]] == [("a3", "3"), ("a1", "1")]
    assert [part.spans for part in searcher.parts("0 2")] == [[(0, 1)], [(2, 3)]]
    assert [part.text for part in searcher.parts("0 2", 1)] == ["0"]
    assert {hit.part for hit in searcher.search("0 2")[0]} == {""}


class SplittingModel(AxisModel):
    """Makes a vector of each word, and counts how often it is asked for the parts."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.config = AMERConfig(document_encoder=ENCODER, document_dim=4, token_vectors=True, splits_questions=True)
        self.parts, self.asked = parts, 0

    def encode_query(self, *arguments, num_query_vectors, **options):
        assert num_query_vectors == "auto"
        return QueryEmbeddings(super().encode_query(*arguments, **options), None)

    def find_parts(self, texts, most=None, batch_size=64):
        self.asked += 1
        return [[Part(word, 0, 1) for word in text.split()[: self.parts]] for text in texts]


def test_the_parts_of_all_questions_are_found_together(store):
    model = SplittingModel(parts=2)
    found = Searcher(model, ExactIndex(store)).search(["0 2", "3 1"], k=2, attribute=True)
    assert [[hit.part for hit in hits] for hits in found] == [["0", "2"], ["3", "1"]]
    assert model.asked == 1


def test_a_part_that_is_not_found_again_has_no_words(store):
    """Rounding may split a question in another way when it is read once more."""
    searcher = Searcher(SplittingModel(parts=1), ExactIndex(store))
    (hits,) = searcher.search("0 2", k=2, attribute=True)
    assert [(hit.found_by, hit.part) for hit in hits] == [(0, "0"), (1, "")]
    assert hits_table("0 2", hits, searcher.parts("0 2")).row_count == 2


def test_a_model_without_token_anchors_names_no_words(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    assert searcher.parts("0 2") == [] and {hit.part for hit in searcher.search("0 2", attribute=True)[0]} == {""}


def test_one_question_may_be_a_plain_string(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    assert searcher.search("0 2", k=3) == searcher.search(["0 2"], k=3)


def test_the_number_of_query_vectors_is_the_callers(store):
    hits = Searcher(AxisModel(), ExactIndex(store)).search("0 2", k=2, num_query_vectors=1)[0]
    assert [(hit.id, hit.found_by, hit.found_at) for hit in hits] == [("a0", 0, 0), ("b", 0, 1)]


def test_a_small_store_gives_fewer_hits_and_a_padded_run(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    assert len(searcher.search("0 2", k=9)[0]) == 5
    assert searcher.search_rows("0 2", k=9).rows[0, 5:].tolist() == [-1] * 4


def test_run_and_search_agree(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    run = searcher.search_rows(["0 2", "3 1"], k=4)
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


def test_a_filter_leaves_k_documents_of_those_that_fulfil_it(dated):
    searcher = Searcher(AxisModel(), ExactIndex(dated))
    hits = searcher.search("0 2", k=3, filter="year > 1990")[0]
    assert [(hit.id, hit.metadata) for hit in hits] == [
        ("b", {"year": 1994}),
        ("a2", {"year": 1992}),
        ("a1", {"year": 1991}),
    ]
    assert searcher.search("0 2", k=3, filter="year > 2000") == [[]]


@pytest.mark.parametrize("filter", ["year >", "month == 1", "year == 'x'"])
def test_a_filter_that_does_not_fit_is_refused_before_anything_is_encoded(dated, monkeypatch, filter):
    searcher = Searcher(AxisModel(), ExactIndex(dated))
    monkeypatch.setattr(Searcher, "encode", None)
    with pytest.raises(ValueError, match=r"filter .*"):
        searcher.search("0 2", k=3, filter=filter)


def test_fusions_have_names(store):
    searcher = Searcher(AxisModel(), ExactIndex(store))
    for name, function in (("max_score", max_score), ("reciprocal_rank", reciprocal_rank)):
        assert searcher.search("0 1", 3, fusion=name) == searcher.search("0 1", 3, fusion=function)
    with pytest.raises(ValueError, match=r"round_robin, reciprocal_rank, max_score.*'maxsim'"):
        searcher.search("0 1", fusion="maxsim")


def test_many_questions_are_answered_in_groups_as_each_alone(store, monkeypatch):
    monkeypatch.setattr(searcher_module, "SEARCHED_TOGETHER", 3)
    searcher = Searcher(AxisModel(), ExactIndex(store))
    questions = [f"{a} {b}" for a in range(4) for b in range(4) if a != b]
    alone = [searcher.search(question, k=4)[0] for question in questions]
    assert searcher.search(questions, k=4) == alone
    assert searcher.search_rows(questions, k=4).rows.shape == (12, 4)
    assert list(searcher.stream(iter(questions), k=4)) == alone


def test_questions_without_end_are_answered_as_they_come(store, monkeypatch):
    monkeypatch.setattr(searcher_module, "SEARCHED_TOGETHER", 2)
    asked = (f"{number % 4} {(number + 1) % 4}" for number in count())
    answers = Searcher(AxisModel(), ExactIndex(store)).stream(asked, k=1)
    assert [hits[0].id for hits in islice(answers, 5)] == ["a0", "a1", "a2", "a3", "a0"]
    assert next(asked) == "0 1", "more was read ahead than two groups"


def test_the_next_group_is_encoded_while_one_is_searched(store, monkeypatch):
    """Each search waits for the encoding of the group after it, which a searcher that takes turns never begins."""
    monkeypatch.setattr(searcher_module, "SEARCHED_TOGETHER", 1)
    encoded = [threading.Event() for _ in range(3)]

    class Waiting(ExactIndex):
        searched = 0

        def search(self, query_embeddings, k, filter=None):
            self.searched += 1
            assert encoded[min(self.searched, 2)].wait(10)
            return super().search(query_embeddings, k, filter)

    class Telling(AxisModel):
        def encode_query(self, texts, **options):
            encoded[int(texts[0][0])].set()
            return super().encode_query(texts, **options)

    hits = Searcher(Telling(), Waiting(store)).search(["0 1", "1 2", "2 3"], k=1)
    assert [found[0].id for found in hits] == ["a0", "a1", "a2"]


def test_what_was_found_before_a_bad_question_is_not_lost(store, monkeypatch):
    monkeypatch.setattr(searcher_module, "SEARCHED_TOGETHER", 1)
    answers = Searcher(AxisModel(), ExactIndex(store)).stream(["0 1", "1 2", "no number"], k=1)
    assert [next(answers)[0].id, next(answers)[0].id] == ["a0", "a1"]
    with pytest.raises(ValueError, match="invalid literal"):
        next(answers)


def test_an_empty_question_is_named_by_its_position_after_what_was_found_before_it(store, monkeypatch):
    monkeypatch.setattr(searcher_module, "SEARCHED_TOGETHER", 2)
    answers = Searcher(AxisModel(), ExactIndex(store)).stream(["0 1", "1 2", "2 3", " "], k=1)
    assert [next(answers)[0].id, next(answers)[0].id] == ["a0", "a1"]
    with pytest.raises(ValueError, match="Question 3 is empty"):
        next(answers)


def test_an_error_of_a_search_reaches_the_caller(store):
    class Broken(ExactIndex):
        def search(self, query_embeddings, k, filter=None):
            raise ConnectionError("the server is away")

    with pytest.raises(ConnectionError, match="away"):
        Searcher(AxisModel(), Broken(store)).search(["0 1"], k=1)


def test_a_stream_of_characters_is_refused(store):
    with pytest.raises(TypeError, match="call search"):
        Searcher(AxisModel(), ExactIndex(store)).stream("0 1")
