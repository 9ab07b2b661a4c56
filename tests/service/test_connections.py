"""Rude clients: idle connections, headers that trickle, answers nobody reads, too many of all."""

from __future__ import annotations

import logging
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from amer.service import create_app, serve
from amer.service.connections import Limits, OnceAWhile, guarded, limits_of
from tests.service.conftest import FakeSearcher, ask, client, metric, running, until
from tests.service.test_serve import serving

LIMITS = Limits(connections=6, idle_seconds=1, answer_seconds=1, backlog=64)
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def address(store):
    with running(create_app(FakeSearcher(store)), http=guarded(LIMITS)) as address:
        yield address


def connect(address: str) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has ended it, an answer read or not."""
    connection.setblocking(False)
    try:
        while connection.recv(2**16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def ask_anew(address: str) -> httpx.Response:
    """On a connection of its own, which is then closed."""
    return httpx.get(f"{address}/health", verify=False, timeout=20, headers={"Connection": "close"})


def test_a_connection_that_says_nothing_is_ended(address):
    idle = [connect(address) for _ in range(4)]
    time.sleep(0.3)
    assert not any(map(is_closed, idle))
    until(lambda: all(map(is_closed, idle)), seconds=10)


def test_headers_that_trickle_are_ended_before_and_after_a_request(address):
    first, second = connect(address), connect(address)
    second.sendall(HEAD + b"\r\n")
    assert second.recv(2**16).startswith(b"HTTP/1.1 200")
    started = time.monotonic()
    for connection in (first, second):
        connection.sendall(HEAD)
    while not (is_closed(first) and is_closed(second)):
        assert time.monotonic() < started + 10
        for connection in (first, second):
            try:
                connection.send(b"X-A: a\r\n")
            except OSError:
                continue
        time.sleep(0.05)
    assert time.monotonic() - started > 0.5


def test_one_connection_too_many_is_refused_in_words_and_the_others_are_served(address):
    idle = [connect(address) for _ in range(LIMITS.connections)]
    time.sleep(0.2)
    refused = connect(address)
    answer = refused.recv(2**16).decode()
    head, body = answer.split("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503") and "Connection: close" in head and "too many connections" in body
    assert int(re.search(r"Content-Length: (\d+)", head)[1]) == len(body)
    until(lambda: is_closed(refused))
    idle[0].sendall(HEAD + b"\r\n")
    assert idle[0].recv(2**16).startswith(b"HTTP/1.1 200")
    for connection in idle:
        connection.close()
    until(lambda: ask_anew(address).status_code == 200)


def test_a_request_that_is_searched_long_is_not_idle(store):
    fake = FakeSearcher(store)
    fake.released.clear()
    with running(create_app(fake), http=guarded(LIMITS)) as address, ThreadPoolExecutor(1) as clients:
        answer = clients.submit(ask, address, "bank")
        time.sleep(2.5 * LIMITS.idle_seconds)
        fake.released.set()
        assert answer.result().status_code == 200


async def large(scope, receive, send) -> None:
    """An application whose answers have 50 MB."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"50000000")]})
        await send({"type": "http.response.body", "body": bytes(50_000_000)})


def test_an_answer_nobody_reads_is_given_up_and_a_slow_reader_gets_it(monkeypatch):
    monkeypatch.setattr("amer.service.connections.SLOWEST", 2**25)  # 2.5 seconds, where it would be minutes
    with running(large, http=guarded(LIMITS), lifespan="off") as address:
        silent, slow = connect(address), connect(address)
        for connection in (silent, slow):
            connection.sendall(HEAD + b"\r\n")
        read = 0
        while read < 50_000_000:
            part = slow.recv(2**20)
            assert part, f"ended after {read} bytes"
            read += len(part)
            time.sleep(0.001)
        time.sleep(4)
        until(lambda: is_closed(silent))


@pytest.mark.server
def test_two_hundred_idle_connections_with_few_files_leave_the_service_alive(store, tmp_path):
    (tmp_path / "release").touch()
    command = ("-m", "tests.service.held", str(store.path), str(tmp_path / "release"), "5", "128")
    with serving(*command) as (process, address):
        idle = []
        for _ in range(200):
            try:
                idle.append(connect(address))
            except OSError:
                break
        assert len(idle) == 200
        until(lambda: any(map(is_closed, idle)))  # those that were too many
        refused = [connection for connection in idle if is_closed(connection)]
        open_still = [connection for connection in idle if connection not in refused]
        assert len(open_still) < 100
        asked = open_still[0]
        asked.setblocking(True)
        asked.sendall(HEAD + b"\r\n")
        assert asked.recv(2**16).startswith(b"HTTP/1.1 200")  # who is connected is answered
        for connection in idle:
            connection.close()
        until(lambda: ask_anew(address).status_code == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read().count("Too many open files") <= 1


def test_the_body_of_an_answer_does_not_wait_for_the_headers_to_be_acknowledged(store, monkeypatch):
    found = []

    def run(server, sockets):
        (listening,) = sockets
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as connection:
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr("uvicorn.Server.run", run)
    serve(FakeSearcher(store), port=0)
    assert found and all(found)


@pytest.mark.server
def test_clients_are_told_to_close_while_the_service_stops(store, tmp_path):
    release = tmp_path / "release"
    command = ("-m", "tests.service.held", str(store.path), str(release), "60")
    with serving(*command) as (process, address), ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(ask, address, "question 0")]
        until(Path(f"{release}.begun").exists)  # in a batch of its own, so that all others wait
        answers += [clients.submit(ask, address, f"question {number}") for number in range(1, 8)]
        until(lambda: metric(address, "amer_waiting_questions") == 7)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        release.touch()
        found = [answer.result() for answer in answers]
        assert [answer.status_code for answer in found] == [200] * 8
        assert [answer.headers.get("connection") for answer in found] == ["close"] * 8
        assert process.wait(60) == 0


def test_an_empty_host_is_refused(store):
    for host in ("", " "):
        with pytest.raises(ValueError, match=r"host is empty.*0\.0\.0\.0"):
            serve(FakeSearcher(store), host=host)


def test_the_limits_leave_files_for_the_search(monkeypatch, caplog):
    monkeypatch.setattr("amer.service.connections._files_open", lambda: 20)
    monkeypatch.setattr("amer.service.connections._files_allowed", lambda: 2**20)
    assert limits_of(512, 30, 30) == Limits(512, 30, 30, 128) and not caplog.text
    monkeypatch.setattr("amer.service.connections._files_allowed", lambda: 128)
    assert limits_of(512, 30, 30) == Limits(22, 30, 30, 22) and "22 connections" in caplog.text
    monkeypatch.setattr("amer.service.connections._files_allowed", lambda: 80)
    with pytest.raises(OSError, match=r"may open 80 files.*ulimit"):
        limits_of(512, 30, 30)


def test_what_clients_can_provoke_is_logged_once_a_minute(caplog):
    log = logging.getLogger("tests.quiet")
    log.addFilter(OnceAWhile())
    for _ in range(3):
        log.error("socket.accept() out of system resource\nsocket: ...")
        log.warning("Invalid HTTP request received.")
        log.warning("another thing")
    assert [record.message[:7] for record in caplog.records] == ["socket.", "Invalid", *["another"] * 3]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_what_describes_the_service_needs_the_key_where_there_is_one(store, path):
    with running(create_app(FakeSearcher(store), api_key="secret")) as address:
        assert client.get(f"{address}{path}").status_code == 401
        assert client.get(f"{address}{path}", headers={"X-API-Key": "secret"}).status_code == 200
    with running(create_app(FakeSearcher(store))) as address:
        assert client.get(f"{address}{path}").status_code == 200
