"""`/explore`: one question with all that its search passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amer.search.exploring import encoder_vectors, explore
from amer.service import Settings, create_app
from tests.service.conftest import DOCUMENTS, FakeSearcher, client, metric, running

QUESTION = "sort a list, and plot it"
EXAMPLES = ("sort a list", "plot it")


@pytest.fixture(scope="module")
def address(mini_searcher):
    with running(create_app(mini_searcher, Settings(max_k=30), examples=EXAMPLES)) as address:
        yield address


def asked(address: str, question: str = QUESTION, **options):
    return client.post(f"{address}/explore", json={"question": question, **options})


def ids(hits: list[dict]) -> list[str]:
    return [hit["id"] for hit in hits]


def test_the_fused_list_is_that_of_search_and_each_list_that_of_its_vector(address, mini_searcher):
    answer = asked(address, k=6, num_query_vectors=3, fusion="max_score", filter="year < 1990").json()
    options = {"k": 6, "num_query_vectors": 3, "fusion": "max_score", "filter": "year < 1990"}
    (hits,) = mini_searcher.search(QUESTION, **options)
    assert ids(answer["hits"]) == [hit.id for hit in hits]
    assert [hit["found_by"] for hit in answer["hits"]] == [hit.found_by for hit in hits]
    rows, scores = mini_searcher.index.search(mini_searcher.encode([QUESTION], 3), 6, "year < 1990")
    for vector, own_rows, own_scores in zip(answer["vectors"], rows[0], scores[0], strict=True):
        assert ids(vector["hits"]) == [f"d{row}" for row in own_rows]
        assert [hit["score"] for hit in vector["hits"]] == pytest.approx(own_scores.tolist(), abs=1e-5)
        assert [hit["found_at"] for hit in vector["hits"]] == list(range(6))
    assert all(hit["metadata"]["year"] < 1990 for hit in answer["hits"])


def test_words_are_those_of_the_model(address, mini_searcher):
    answer = asked(address, num_query_vectors=2).json()
    parts = mini_searcher.parts(QUESTION, 2)
    assert [(vector["part"], [tuple(span) for span in vector["spans"]]) for vector in answer["vectors"]] == parts
    assert any(vector["part"] for vector in answer["vectors"])


def test_the_encoder_alone_searches_with_the_whole_question(address, mini_searcher):
    answer = asked(address, k=10, num_query_vectors=2).json()
    vector = encoder_vectors(mini_searcher, [QUESTION])
    rows, _ = mini_searcher.index.search(vector[:, None], DOCUMENTS)
    assert ids(answer["encoder"]["hits"]) == [f"d{row}" for row in rows[0, 0, :10]]
    assert answer["encoder"]["depth"] == DOCUMENTS  # so that every rank is known
    place = {f"d{row}": rank for rank, row in enumerate(rows[0, 0])}
    assert answer["encoder"]["ranks"] == [place[name] for name in ids(answer["hits"])]


def test_a_rank_beyond_what_was_searched_is_unknown(mini_searcher, monkeypatch):
    monkeypatch.setattr("amer.search.exploring.NEIGHBOURS", 1)
    (found,) = explore(mini_searcher, [QUESTION], k=3, num_query_vectors=2)
    assert found.depth == 3 and len(found.encoder) == 3
    alone = [hit.id for hit in found.encoder]
    expected = [alone.index(hit.id) if hit.id in alone else None for hit in found.hits]
    assert found.encoder_ranks == expected and None in expected


def test_a_service_without_the_encoder_says_so(searcher):
    with running(create_app(searcher)) as address:
        answer = asked(address).json()
    assert answer["encoder"] is None and len(answer["vectors"]) == 3
    assert [vector["spans"] for vector in answer["vectors"]] == [[], [], []]
    assert {place["kind"] for place in answer["map"]} == {"query", "hit", "neighbour"}


def test_the_map_holds_every_vector_of_the_question_and_every_document_once(address, mini_searcher):
    answer = asked(address, k=4, num_query_vectors=2).json()
    places = answer["map"]
    assert [(place["kind"], place["vector"]) for place in places[:3]] == [
        ("query", 0),
        ("query", 1),
        ("encoder", None),
    ]
    documents = [place["id"] for place in places[3:]]
    assert len({*documents}) == len(documents) == DOCUMENTS
    assert {place["id"] for place in places if place["kind"] == "hit"} == {*ids(answer["hits"])}
    assert np.abs([[place["x"], place["y"]] for place in places]).max() == pytest.approx(1)
    best = next(place for place in places if place["id"] == answer["vectors"][1]["hits"][0]["id"])
    assert best["vector"] in (0, 1)


def test_only_vectors_that_the_model_emitted_are_shown(mini_searcher, monkeypatch):
    encode = mini_searcher.encode
    blank = np.array([1, 0, 1], dtype=np.float32)[:, None]
    monkeypatch.setattr(mini_searcher, "encode", lambda *arguments: encode(*arguments) * blank)
    (found,) = explore(mini_searcher, [QUESTION], k=5)
    assert len(found.lists) == 2 and all(len(hits) == 5 for hits in found.lists)
    assert [place.vector for place in found.map if place.kind == "query"] == [0, 1]


def test_questions_that_are_explored_together_get_what_they_get_alone(mini_searcher):
    questions = [QUESTION, "what is a bank?"]
    together = explore(mini_searcher, questions, k=5)
    for question, found in zip(questions, together, strict=True):
        (alone,) = explore(mini_searcher, [question], k=5)
        assert [hit.id for hit in found.hits] == [hit.id for hit in alone.hits]
        assert found.parts == alone.parts and found.encoder_ranks == alone.encoder_ranks


def test_a_filter_that_leaves_nothing_gives_empty_lists(address):
    answer = asked(address, filter="year > 3000").json()
    assert answer["hits"] == [] and answer["encoder"]["hits"] == []
    assert {place["kind"] for place in answer["map"]} == {"query", "encoder"}


def test_long_texts_are_cut(mini_searcher, monkeypatch):
    documents = mini_searcher.store.documents
    long = "word " * 1_000

    def lengthened(rows):
        return [{**document, "text": long} for document in documents(rows)]

    monkeypatch.setattr(mini_searcher.store, "documents", lengthened)
    with running(create_app(mini_searcher)) as address:
        answer = asked(address, k=3).json()
    assert {len(hit["text"]) for hit in answer["hits"]} <= {1_000, 1_001}
    assert max(len(place["text"]) for place in answer["map"]) == 160


@pytest.mark.parametrize(
    "change",
    [{"question": " "}, {"question": 3}, {"k": 31}, {"k": 0}, {"num_query_vectors": 33}, {"filter": "nothing == 1"}],
)
def test_what_does_not_fit_is_refused(address, change):
    refused = client.post(f"{address}/explore", json={"question": "a", **change})
    assert refused.status_code == 422 and refused.json()["detail"]


def test_more_vectors_than_a_model_has_query_tokens_for_are_refused(address, mini_searcher):
    most = mini_searcher.model.config.max_query_vectors
    assert asked(address, num_query_vectors=most).status_code == 200
    assert asked(address, num_query_vectors=most + 1).status_code == 422
    body = {"questions": [QUESTION], "num_query_vectors": most + 1}
    assert client.post(f"{address}/search", json=body).status_code == 422
    body = {"model": "amer", "input": QUESTION, "n_vectors": most + 1}
    assert client.post(f"{address}/v1/embeddings", json=body).status_code == 422


def test_it_says_what_may_be_asked(address):
    said = client.get(f"{address}/explore/options").json()
    assert said["documents"] == DOCUMENTS and said["examples"] == list(EXAMPLES)
    assert (said["num_query_vectors"], said["most_query_vectors"], said["most_k"]) == (3, 4, 30)
    assert said["fields"] == {"year": "int64", "language": "string", "weight": "double", "long": "bool"}


def test_the_key_is_needed_and_the_page_itself_needs_none(mini_searcher):
    with running(create_app(mini_searcher, api_key="secret")) as address:
        assert client.get(f"{address}/explore/options").status_code == asked(address).status_code == 401
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            assert client.get(f"{address}/explore/options", headers=headers).status_code == 200
        assert client.get(f"{address}/").status_code == 200


def test_it_waits_in_the_queue_of_all_and_is_given_up_in_time(store):
    fake = FakeSearcher(store)
    fake.released.clear()
    fake.fusion = lambda name: fake.search([])
    with running(create_app(fake, Settings(timeout_seconds=1))) as address:
        assert asked(address).status_code == 504
        assert metric(address, "amer_batch_questions_count") == 1
        fake.released.set()


def test_the_page_brings_all_it_needs_and_allows_nothing_else(address):
    page = client.get(f"{address}/")
    policy = page.headers["Content-Security-Policy"]
    assert page.headers["Content-Type"].startswith("text/html") and "unsafe" not in policy and "http:" not in policy
    assert "default-src 'none'" in policy
    for name in ("page.css", "page.js", "element.js", "results.js", "map.js", "icon.svg"):
        answer = client.get(f"{address}/page/{name}")
        assert answer.status_code == 200 and answer.headers["Content-Security-Policy"] == policy
        assert "//cdn" not in answer.text and "innerHTML" not in answer.text
    assert client.get(f"{address}/page/../app.py").status_code == 404


def test_limits_of_a_small_service_hold(mini_searcher):
    small = replace(Settings(), max_k=20, max_num_query_vectors=2, max_question_characters=10)
    with running(create_app(mini_searcher, small)) as address:
        said = client.get(f"{address}/explore/options").json()
        assert (said["most_query_vectors"], said["most_k"], said["most_question_characters"]) == (2, 20, 10)
        assert asked(address, "a" * 11).status_code == 422
