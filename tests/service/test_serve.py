"""`scripts/serve.py` as a process: ready, asked, stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from amer.service import serve
from tests.service.conftest import FakeSearcher, ask, client, metric, until

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "serve.py"
READY = re.compile(r"ready: (http://\S+)")


@contextmanager
def serving(model: str, store, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process and its address; whatever happens, it is ended."""
    command = [sys.executable, str(SCRIPT), "--model", model, "--store", str(store.path), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := READY.search(line):
                break
        else:
            pytest.fail(f"the service did not start:\n{said}")
        yield process, found.group(1)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_terminated_service_answers_what_is_in_flight_and_nothing_new(model_folder, store):
    key = {"X-API-Key": "secret"}
    with serving(model_folder, store, AMER_API_KEY="secret") as (process, address), ThreadPoolExecutor(1) as clients:
        assert ask(address, "bank").status_code == 401
        long = {"k": 60, "num_query_vectors": 32, "headers": key}
        in_flight = clients.submit(ask, address, *["a long question " * 60] * 32, **long)
        until(lambda: metric(address, "amer_batch_questions_count") == 1)
        assert not in_flight.done()  # else this shows nothing
        process.send_signal(signal.SIGTERM)
        answer = in_flight.result()
        assert answer.status_code == 200 and len(answer.json()["answers"]) == 32
        assert process.wait(20) == 0
        with pytest.raises(httpx.ConnectError):
            client.get(f"{address}/health")


def test_an_interrupted_service_ends_though_its_search_does_not(model_folder, store):
    options = ("--stop_seconds", "1")
    with serving(model_folder, store, *options) as (process, address), ThreadPoolExecutor(1) as clients:
        in_flight = clients.submit(ask, address, *["a question " * 300] * 64, num_query_vectors=32)
        until(lambda: metric(address, "amer_batch_questions_count") == 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert in_flight.exception() is not None or in_flight.result().status_code >= 500


def test_an_address_in_use_is_said_so(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}"):
            serve(FakeSearcher(store), port=port)
