"""Services on free ports: the application in a thread, driven over HTTP, and searchers that do as a test asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pytest

from amer.corpus import DocumentStore, write_store
from amer.search import ExactIndex, Hit, Searcher
from modeling_amer import AMERConfig
from tests.conftest import DIM, build, build_mini

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `serve`")
ENCODER = {"name": "org/encoder"}
client = httpx.Client(verify=False, timeout=30)  # no TLS here, and its setup costs more than a request
DOCUMENTS = 60


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> DocumentStore:
    """Documents with metadata of every kind."""
    rows = np.arange(DOCUMENTS)
    vectors = np.random.default_rng(0).normal(size=(DOCUMENTS, DIM))
    documents = pa.table(
        {
            "id": [f"d{row}" for row in rows],
            "title": [f"title {row}" for row in rows],
            "text": [f"text {row}" for row in rows],
            "year": 1950 + rows,
            "language": [("en", "de", "fr")[row % 3] for row in rows],
            "weight": rows / 2,
            "long": rows % 2 == 0,
        }
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return write_store(
        tmp_path_factory.mktemp("served") / "store", documents, unit.astype("float32"), ENCODER, "float32"
    )


@pytest.fixture(scope="session")
def model_folder(llama, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build(llama, document_encoder=ENCODER).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def searcher(llama, store) -> Searcher:
    return Searcher(build(llama, document_encoder=ENCODER).eval(), ExactIndex(store))


@pytest.fixture(scope="session")
def mini_searcher(tiny_encoder, store) -> Searcher:
    """A model that embeds its questions itself, and says which words a query vector stands for."""
    model = build_mini(tiny_encoder, stop_score=False).eval()
    model.config.document_encoder = ENCODER
    model.document_encoder_path = tiny_encoder
    return Searcher(model, ExactIndex(store))


class FakeSearcher:
    """Answers every question with one hit, its text the question itself, once `released`; remembers its batches."""

    def __init__(
        self, store: DocumentStore, fail: Callable[[list[str]], BaseException | None] = lambda questions: None
    ):
        config = AMERConfig(name_or_path="org/fake", num_query_vectors=3)
        self.model, self.store = SimpleNamespace(config=config), store
        self.fail = fail
        self.score = 0.5
        self.batches: list[list[str]] = []
        self.released = threading.Event()
        self.released.set()

    def search(self, questions: list[str], **options) -> list[list[Hit]]:
        self.batches.append(questions)
        if not self.released.wait(20):
            raise RuntimeError("the test never released the searcher")
        error = self.fail(questions)
        if error is not None:
            raise error
        return [[Hit(question, self.score, "", question, 0, 0, {})] for question in questions]


@contextmanager
def running(app, **options) -> Iterator[str]:
    """A real uvicorn in a thread; yields its address. Options are uvicorn's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that must come true."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail("it never came true")
        time.sleep(0.005)


def ask(address: str, *questions: str, headers: dict | None = None, **options) -> httpx.Response:
    body = {"questions": list(questions), **options}
    return client.post(f"{address}/search", json=body, headers=headers)


def metric(address: str, line: str) -> float:
    """The value of a metric, written as Prometheus reads it; 0 where it is not there."""
    lines = client.get(f"{address}/metrics").text.splitlines()
    return next((float(shown.removeprefix(line)) for shown in lines if shown.startswith(f"{line} ")), 0.0)
