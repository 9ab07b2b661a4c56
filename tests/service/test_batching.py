"""Concurrent requests are searched together, and nobody notices."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from amer.service import Settings, create_app
from amer.service.batching import Batcher
from amer.service.cache import LARGEST, AnswerCache
from amer.service.work import Search
from tests.service.conftest import FakeSearcher, ask, metric, running, until

FUSIONS = (None, "round_robin", "reciprocal_rank", "max_score")


def as_answered(hits) -> list[tuple]:
    return [(hit.id, hit.title, hit.text, hit.found_by, hit.found_at) for hit in hits]


def as_served(hits: list[dict]) -> list[tuple]:
    return [tuple(hit[name] for name in ("id", "title", "text", "found_by", "found_at")) for hit in hits]


def test_many_concurrent_requests_get_what_the_searcher_answers(searcher):
    draw = random.Random(0)
    asked = [
        {
            "questions": [f"question {draw.randrange(20)}" for _ in range(draw.randint(1, 3))],
            "k": draw.choice((1, 5, 100)),
            "num_query_vectors": draw.choice((None, 1, 2)),
            "fusion": draw.choice(FUSIONS),
            "filter": draw.choice((None, "year < 1980", 'language == "de"')),
        }
        for _ in range(80)
    ]
    app = create_app(searcher, Settings(cache_size=0))
    with running(app) as address, ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda body: ask(address, *body["questions"], **_options(body)), asked))
        batches = metric(address, "amer_batch_questions_count")
        assert metric(address, "amer_batch_questions_sum") == sum(len(body["questions"]) for body in asked)
    assert batches < len(asked)  # some were searched together
    for body, answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200
        expected = searcher.search(body["questions"], **_options(body))
        served = [one["hits"] for one in answer.json()["answers"]]
        assert [as_served(hits) for hits in served] == [as_answered(hits) for hits in expected]
        scores = [hit["score"] for hits in served for hit in hits]
        assert scores == pytest.approx([hit.score for hits in expected for hit in hits], abs=1e-5)


def _options(body: dict) -> dict:
    return {name: value for name, value in body.items() if name != "questions"}


def held(fake: FakeSearcher, address: str, clients: ThreadPoolExecutor, *requests: dict) -> list:
    """Send one request, and the others while it is being searched; then let them all go."""
    fake.released.clear()
    first = clients.submit(ask, address, "first")
    until(lambda: fake.batches == [["first"]])
    others = []
    for body in requests:  # one after another, so that their order is known
        waiting = metric(address, "amer_waiting_questions")
        others.append(clients.submit(ask, address, *body["questions"], **_options(body)))
        until(lambda waiting=waiting: metric(address, "amer_waiting_questions") > waiting)
    fake.released.set()
    return [future.result() for future in (first, *others)]


def test_what_waits_becomes_one_batch_of_equal_options_up_to_the_limit(store):
    fake = FakeSearcher(store)
    limits = Settings(max_questions=3, max_batch_questions=4)
    requests = [
        {"questions": ["a", "b"]},
        {"questions": ["other k"], "k": 3},
        {"questions": ["c", "d", "e"]},
        {"questions": ["f"]},
        {"questions": ["filtered"], "filter": "year > 1960"},
    ]
    with running(create_app(fake, limits)) as address, ThreadPoolExecutor(8) as clients:
        answers = held(fake, address, clients, *requests)
    assert fake.batches == [["first"], ["a", "b", "f"], ["other k"], ["c", "d", "e"], ["filtered"]]
    for body, answer in zip(requests, answers[1:], strict=True):
        assert [one["hits"][0]["text"] for one in answer.json()["answers"]] == body["questions"]


def test_clients_that_ask_again_at_once_are_searched_together_again():
    sizes: list[int] = []
    released = threading.Event()

    def search(questions: list[str], options: Search) -> list[bytes]:
        assert released.wait(20)
        return [b"found"] * len(questions)

    batcher = Batcher(search, 9, 9, sizes.append, AnswerCache(0, lambda: None))

    async def client() -> None:
        for _ in range(5):
            await batcher.find(["a"], Search(1, None, None, None))

    async def clients() -> None:
        async with batcher.running():
            asking = [asyncio.create_task(client())]
            while not batcher.searching:  # the first is searched alone, the others come meanwhile
                await asyncio.sleep(0)
            asking += [asyncio.create_task(client()) for _ in range(3)]
            while batcher.waiting < 3:
                await asyncio.sleep(0)
            released.set()
            await asyncio.gather(*asking)

    asyncio.run(asyncio.wait_for(clients(), 20))
    assert sizes == [1, 3, 4, 4, 4, 4]


def test_a_request_larger_than_a_batch_is_searched_alone():
    batcher = Batcher(
        lambda questions, options: [b"found"] * len(questions), 1, 9, lambda size: None, AnswerCache(0, lambda: None)
    )
    answers = []

    async def search() -> None:
        async with batcher.running():
            answers.extend(await batcher.find(["a", "b"], Search(1, None, None, None)))

    searching = threading.Thread(target=lambda: asyncio.run(search()), daemon=True)  # it might never end
    searching.start()
    searching.join(20)
    assert answers == [b"found", b"found"]


def test_one_bad_request_of_a_batch_hurts_nobody(store):
    fake = FakeSearcher(store, lambda questions: RuntimeError("secret") if "bad" in questions else None)
    requests = [{"questions": [text]} for text in ("good", "bad", "also good")]
    with running(create_app(fake)) as address, ThreadPoolExecutor(8) as clients:
        answers = held(fake, address, clients, *requests)
    assert fake.batches[1] == ["good", "bad", "also good"]
    assert [answer.status_code for answer in answers] == [200, 200, 500, 200]
    assert "secret" not in answers[2].text


def test_a_filter_that_does_not_fit_is_told_why_and_never_searched(searcher):
    app = create_app(searcher, Settings(cache_size=0))
    with running(app) as address, ThreadPoolExecutor(8) as clients:
        filters = ["year > 1960", "nonsense == 3", 'year == "x"', "year >", None] * 4
        answers = list(clients.map(lambda text: ask(address, "bank", filter=text), filters))
        assert metric(address, "amer_batch_questions_sum") == 8
    assert [answer.status_code for answer in answers] == [200, 422, 422, 422, 200] * 4
    assert "there is no field 'nonsense'" in answers[1].json()["detail"]


def test_a_question_asked_again_is_answered_without_a_search(store):
    fake = FakeSearcher(store)
    with running(create_app(fake, Settings(cache_size=2))) as address:
        first = ask(address, "a", "b")
        assert ask(address, "b", "a", "c").json()["answers"][:2] == first.json()["answers"][::-1]
        assert ask(address, "a").json()["answers"] == first.json()["answers"][:1]
        assert fake.batches == [["a", "b"], ["c"]]
        assert metric(address, "amer_repeated_questions_total") == 3
        assert ask(address, "a", k=3).json()["answers"] == first.json()["answers"][:1]  # the fake's one hit
        ask(address, "b")
        assert fake.batches[2:] == [["a"], ["b"]]  # asked for in another way; gone, since two are kept
        ask(address, "a", k=3)
        assert len(fake.batches) == 4


def test_without_a_cache_every_question_is_searched_and_failures_are_never_kept(store):
    fake = FakeSearcher(store)
    with running(create_app(fake, Settings(cache_size=0))) as address:
        assert [ask(address, "a").status_code for _ in range(2)] == [200, 200]
        assert fake.batches == [["a"], ["a"]]
    fake.fail = lambda questions: RuntimeError("no")
    with running(create_app(fake)) as address:
        assert ask(address, "a").status_code == 500
        fake.fail = lambda questions: None
        assert ask(address, "a").status_code == 200
    with pytest.raises(ValueError, match="cache_size must be 0 or more"):
        Settings(cache_size=-1)


def test_an_answer_of_many_documents_is_not_kept():
    cache = AnswerCache(2, lambda: None)
    cache.keep("long", 1, b"x" * (LARGEST + 1))
    cache.keep("short", 1, b"x" * LARGEST)
    assert cache.get("long", 1) is None and len(cache.get("short", 1)) == LARGEST
