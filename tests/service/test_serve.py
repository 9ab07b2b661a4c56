"""`amer serve` as a process: ready, asked, stopped."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from amer.service import serve
from tests.service.conftest import FakeSearcher, ask, metric, until
from tests.serving import serving

pytestmark = pytest.mark.server


def refused(address: str) -> bool:
    """Whether a new client is not answered."""
    try:
        httpx.get(f"{address}/health", verify=False)
    except httpx.TransportError:
        return True
    return False


def test_the_command_serves_a_model_to_those_with_the_key(model_folder, store):
    command = ("-m", "amer", "serve", "--model", model_folder, "--store", str(store.path), "--port", "0")
    with serving(*command, AMER_API_KEY="secret") as (process, address):
        assert ask(address, "bank").status_code == 401
        answer = ask(address, "bank", k=5, headers={"X-API-Key": "secret"})
        assert answer.status_code == 200 and len(answer.json()["answers"][0]["hits"]) == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_terminated_service_answers_what_is_in_flight_and_nothing_new(store, tmp_path):
    release = tmp_path / "release"
    command = ("-m", "tests.service.held", str(store.path), str(release), "60")
    with serving(*command) as (process, address), ThreadPoolExecutor(1) as clients:
        in_flight = clients.submit(ask, address, "bank")
        until(lambda: metric(address, "amer_batch_questions_count") == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: refused(address))
        assert not in_flight.done()
        release.touch()
        assert in_flight.result().status_code == 200
        assert process.wait(60) == 0


def test_an_interrupted_service_ends_though_its_search_does_not(store, tmp_path):
    command = ("-m", "tests.service.held", str(store.path), str(tmp_path / "never"), "1")
    with serving(*command) as (process, address), ThreadPoolExecutor(1) as clients:
        in_flight = clients.submit(ask, address, "bank")
        until(lambda: metric(address, "amer_batch_questions_count") == 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert in_flight.exception() is not None or in_flight.result().status_code >= 500


def test_an_address_in_use_is_said_so(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}"):
            serve(FakeSearcher(store), port=port)
