"""What the service answers, refuses, drops and counts, over HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from amer import __version__
from amer.service import Settings, create_app
from tests.service.conftest import DOCUMENTS, FakeSearcher, ask, client, metric, running, until

SMALL = Settings(
    max_body_bytes=2_000, max_questions=3, max_question_characters=50, max_k=20, max_documents=40,
    max_num_query_vectors=4, max_filter_characters=30, max_batch_questions=3, max_waiting_questions=4,
    timeout_seconds=20,
)  # fmt: skip
IMPATIENT = replace(SMALL, timeout_seconds=1)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def address(searcher):
    with running(create_app(searcher, SMALL)) as address:
        yield address


@pytest.fixture(scope="module")
def usual_address(searcher):
    with running(create_app(searcher)) as address:
        yield address


@pytest.fixture
def fake(store):
    return FakeSearcher(store)


def connection(address: str) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def request_bytes(body: bytes, length: int | None = None) -> bytes:
    head = (
        f"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def test_health_says_what_is_served(address, llama):
    answer = client.get(f"{address}/health").json()
    assert answer["status"] == "ok" and answer["version"] == __version__
    assert answer["documents"] == DOCUMENTS and answer["num_query_vectors"] == 3
    assert answer["encoder"] == {"name": "org/encoder", "revision": None}


def test_metadata_keep_their_types(address):
    answer = ask(address, "bank", k=1, filter="year == 1957")
    (hit,) = answer.json()["answers"][0]["hits"]
    assert hit["metadata"] == {"year": 1957, "language": "de", "weight": 3.5, "long": False}
    schema = client.get(f"{address}/openapi.json").json()["components"]["schemas"]["FoundDocument"]
    kinds = schema["properties"]["metadata"]["additionalProperties"]["anyOf"]
    assert {kind["type"] for kind in kinds} == {"string", "integer", "number", "boolean"}


@pytest.mark.parametrize(
    "change",
    [
        {"questions": []},
        {"questions": ["a"] * 4},
        {"questions": ["a" * 51]},
        {"questions": [" \t"]},
        {"questions": "a"},
        {"questions": [None]},
        {"k": 0},
        {"k": 21},
        {"k": "3"},
        {"k": True},
        {"num_query_vectors": 0},
        {"num_query_vectors": 5},
        {"fusion": "mixture"},
        {"filter": ""},
        {"filter": "year in [" + "1, " * 20 + "]"},
        {"surplus": 1},
    ],
)
def test_what_does_not_fit_is_refused_and_names_the_field(address, change):
    body = json.dumps({"questions": ["a"], **change})
    answer = client.post(f"{address}/search", content=body, headers=JSON)
    assert answer.status_code == 422
    (field,) = change
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b"\xff",
        b'{"questions": ["a"], "k": NaN}',
        b'{"questions": ["\\ud800"]}',
        b"[" * 1_500,
    ],
)
def test_a_body_that_is_no_request_is_refused(address, body):
    answer = client.post(f"{address}/search", content=body, headers=JSON)
    assert answer.status_code == 422 and answer.json()["detail"]


def test_another_content_type_is_refused(address):
    answer = client.post(f"{address}/search", content=b'{"questions": ["a"]}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize("size", [2_001, 1_000_000, 10_000_000])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_limit_is_refused_with_and_without_its_length(address, size, declared):
    body = b'{"questions": ["' + b"a" * size + b'"]}'
    content = body if declared else (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    answer = client.post(f"{address}/search", content=content, headers=JSON)
    assert answer.status_code == 413 and "2000 bytes" in answer.json()["detail"]


def test_ten_thousand_questions_and_a_question_of_a_megabyte_are_refused_by_the_usual_limits(usual_address):
    assert ask(usual_address, *["a"] * 10_000).status_code == 422
    assert ask(usual_address, "a" * 1_000_000).status_code == 422
    assert ask(usual_address, "a" * 2**20).status_code == 413
    assert ask(usual_address, "bank").status_code == 200


def test_an_answer_of_too_many_documents_is_refused(address):
    assert ask(address, "a", "b", k=20).status_code == 200
    refused = ask(address, "a", "b", "c", k=14)
    assert refused.status_code == 422 and "questions x k is 42, at most 40" in refused.json()["detail"]


@pytest.mark.parametrize(
    "filter",
    [
        "-" * 1_900 + "1 == 3",
        "f" + "()" * 900,
        "x" + ".x" * 900,
        "(" * 300 + "year == 1" + ")" * 300,
        "not " * 400 + "year == 1",
        "weight == " + "9" * 400,
        "year == 9223372036854775808",
        "year == 1e999",
        "year == 1\x00",
        'language == "\x01"',
        'language == "\x00"',
        'language == "\n"',
        "\x1b[31m == 1",
        'language == "en',
        "language == 'en\"",
        '"""',
        "\\",
    ],
)
def test_a_filter_that_cannot_be_searched_with_is_refused(usual_address, filter):
    refused = ask(usual_address, "a", filter=filter)
    assert refused.status_code == 422 and "filter" in refused.json()["detail"]


@pytest.mark.parametrize(
    "filter", ["weight == 9007199254740993", "weight >= -9007199254740993", "weight in [1, 9223372036854775808]"]
)
def test_a_whole_number_that_no_float_holds_can_be_compared_with_floats(usual_address, filter):
    assert ask(usual_address, "a", filter=filter).status_code == 200


def test_a_body_that_never_ends_is_given_up(fake):
    with running(create_app(fake, IMPATIENT)) as address, connection(address) as open_connection:
        open_connection.sendall(request_bytes(b"{", length=100))
        assert open_connection.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("key", [None, "", "wrong", "secre", "secret2", "sécret".encode(), b"\xff"])
def test_without_the_key_nothing_is_searched(fake, key):
    with running(create_app(fake, api_key="secret")) as address:
        headers = {} if key is None else {"X-API-Key": key}
        refused = ask(address, "a", headers=headers)
        assert refused.status_code == 401 and refused.json()["detail"]
        assert client.post(f"{address}/search", content=b"{", headers=headers).status_code == 401
        assert fake.batches == []
        assert client.get(f"{address}/health").status_code == 200
        assert ask(address, "a", headers={"X-API-Key": "secret"}).status_code == 200


def test_no_request_needs_a_thread_of_its_own(fake, monkeypatch):
    with running(create_app(fake, api_key="secret")) as address:
        monkeypatch.setattr("anyio.to_thread.run_sync", None)
        assert ask(address, "a", headers={"X-API-Key": "secret"}).status_code == 200


def test_an_empty_key_is_no_key(fake):
    with pytest.raises(ValueError, match="the API key is empty"):
        create_app(fake, api_key="")


@pytest.mark.parametrize(
    "change",
    [
        {"timeout_seconds": 0},
        {"max_batch_questions": 63},
        {"max_filter_characters": 10**5},
        {"max_documents": 63},
        {"max_documents": 999},
    ],
)
def test_limits_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Settings(**change)


def test_who_waits_too_long_is_told_and_never_searched(fake):
    fake.released.clear()
    with running(create_app(fake, IMPATIENT)) as address, ThreadPoolExecutor(4) as clients:
        first = clients.submit(ask, address, "first")
        until(lambda: fake.batches)
        late = [clients.submit(ask, address, text, k=3) for text in ("second", "third")]
        assert [future.result().status_code for future in (first, *late)] == [504] * 3
        assert metric(address, "amer_waiting_questions") == 0
        fake.released.set()
        assert ask(address, "fourth").status_code == 200
    assert fake.batches == [["first"], ["fourth"]]


def test_a_full_queue_is_said_so_and_has_room_again_afterwards(fake):
    fake.released.clear()
    limits = Settings(max_questions=3, max_waiting_questions=4)
    with running(create_app(fake, limits)) as address, ThreadPoolExecutor(4) as clients:
        accepted = [clients.submit(ask, address, "first")]
        until(lambda: fake.batches)
        accepted.append(clients.submit(ask, address, "a", "b", "c"))
        until(lambda: metric(address, "amer_waiting_questions") == 3)
        refused = ask(address, "d", "e")
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
        assert "3 questions are waiting" in refused.json()["detail"]
        fake.released.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
        assert ask(address, "d", "e").status_code == 200


def test_who_has_gone_is_not_searched_for(fake):
    fake.released.clear()
    with running(create_app(fake)) as address, ThreadPoolExecutor(4) as clients:
        first = clients.submit(ask, address, "first")
        until(lambda: fake.batches)
        with connection(address) as leaving:
            leaving.sendall(request_bytes(b'{"questions": ["gone"]}'))
            until(lambda: metric(address, "amer_waiting_questions") == 1)
        until(lambda: metric(address, "amer_waiting_questions") == 0)
        until(lambda: metric(address, 'amer_requests_total{path="/search",status="499"}') == 1)
        fake.released.set()
        assert first.result().status_code == 200
    assert fake.batches == [["first"]]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConnectionRefusedError("http://10.0.0.1 secret"), 503),
        (TimeoutError("secret"), 503),
        (ValueError("secret"), 500),
        (RuntimeError("secret"), 500),
        (StopIteration("secret"), 500),
        (CancelledError("secret"), 500),
        (SystemExit("secret"), 500),
    ],
)
def test_what_fails_inside_is_not_told_but_logged(store, caplog, error, status):
    fake = FakeSearcher(store, lambda questions: error if questions == ["bad"] else None)
    with running(create_app(fake)) as address:
        answer = ask(address, "bad")
        assert answer.status_code == status and "secret" not in answer.text and answer.json()["detail"]
        assert ("Retry-After" in answer.headers) == (status == 503)
        assert [ask(address, "good").status_code for _ in range(5)] == [200] * 5
    assert "secret" in caplog.text


def test_a_score_that_is_no_number_is_the_services_failure(fake):
    fake.score = float("nan")
    with running(create_app(fake)) as address:
        assert ask(address, "a").status_code == 500


class NoThreads(ThreadPoolExecutor):
    def submit(self, *work):
        raise RuntimeError("can't start new thread")


def test_a_service_that_can_search_no_more_says_so(fake, monkeypatch, caplog):
    monkeypatch.setattr("amer.service.batching.ThreadPoolExecutor", NoThreads)
    with running(create_app(fake)) as address:
        assert client.get(f"{address}/health").status_code == 200
        answers = [ask(address, "a"), ask(address, "b"), client.get(f"{address}/health")]
        documented = client.get(f"{address}/openapi.json").json()["paths"]["/health"]["get"]["responses"]
    assert [answer.status_code for answer in answers] == [503] * 3 and "503" in documented
    assert all("the search has stopped" in answer.json()["detail"] for answer in answers)
    assert "can't start new thread" in caplog.text


class HeldHits(list):
    """Hits that are not read before a test lets them."""

    def __init__(self, hits):
        super().__init__(hits)
        self.reading, self.released = threading.Event(), threading.Event()

    def __iter__(self):
        self.reading.set()
        if not self.released.wait(20):
            raise RuntimeError("the test never released the hits")
        return super().__iter__()


def test_the_service_lives_while_an_answer_is_written(fake, monkeypatch):
    held = HeldHits(fake.search(["a"])[0])
    monkeypatch.setattr(fake, "search", lambda questions, **options: [held])
    with running(create_app(fake)) as address, ThreadPoolExecutor(1) as clients:
        asking = clients.submit(ask, address, "a")
        until(held.reading.is_set)
        assert client.get(f"{address}/health").status_code == 200
        held.released.set()
        answer = asking.result()
    assert answer.status_code == 200 and answer.json()["answers"][0]["hits"][0]["text"] == "a"


def test_metrics_count_what_happened(fake):
    with running(create_app(fake)) as address:
        for questions in (["a"], ["b", "c"], []):
            ask(address, *questions)
        client.get(f"{address}/nowhere/{time.time()}")
        until(lambda: metric(address, 'amer_requests_total{path="other",status="404"}') == 1)
        assert metric(address, 'amer_requests_total{path="/search",status="200"}') == 2
        assert metric(address, 'amer_requests_total{path="/search",status="422"}') == 1
        assert metric(address, 'amer_request_seconds_count{path="/search"}') == 3
        assert metric(address, "amer_batch_questions_count") == 2
        assert metric(address, "amer_batch_questions_sum") == 3


def test_every_error_has_the_documented_schema(address):
    schema = client.get(f"{address}/openapi.json").json()
    answers = schema["paths"]["/search"]["post"]["responses"]
    assert set(answers) == {"200", "408", "413", "415", "422", "500", "503", "504"}
    problem = {"$ref": "#/components/schemas/Problem"}
    errors = [answer for status, answer in answers.items() if status != "200"]
    assert all(answer["content"]["application/json"]["schema"] == problem for answer in errors)
    for answer in (client.get(f"{address}/nowhere"), client.get(f"{address}/search")):
        assert set(answer.json()) == {"detail"}
