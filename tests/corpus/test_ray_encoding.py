"""Encoding a corpus with Ray, on two real nodes of which one is killed: the bytes of a run without Ray.

Run as a program, this file is the driver, `python test_ray_encoding.py CORPUS STORE ADDRESS`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus.encoding import encode_corpus
from amer.corpus.ray_encoding import encode_corpus_with_ray

pytestmark = [pytest.mark.server, pytest.mark.skipif(find_spec("ray") is None, reason="needs ray (extra `ray`)")]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # nodes of a cluster listen on all interfaces
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_health_check_period_ms": "500",  # so that a dead node is missed within seconds
    "RAY_health_check_failure_threshold": "2",
}
LOOPBACK = "127.0.0.1"
NODE = [
    "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={LOOPBACK}", "--num-cpus=1",
    "--object-store-memory=80000000", "--include-log-monitor=false",
]  # fmt: skip


class SlowEncoder:
    """A fake encoder, which begins when there are two: a text's vector is drawn with a seed made from the text."""

    dim = 8

    def __init__(self, ready: Path, seconds: float) -> None:
        self.identity = {"name": "slow"}
        self.ready = ready
        self.seconds = seconds
        (ready / str(os.getpid())).touch()

    def encode_documents(self, documents: pa.Table, batch_size: int) -> np.ndarray:
        while len([*self.ready.iterdir()]) < 2:
            time.sleep(0.1)
        time.sleep(self.seconds)
        seeds = [
            int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in documents["text"].to_pylist()
        ]
        vectors = np.stack([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen]:
    """A process, killed in the end with all it has started."""
    process = subprocess.Popen([sys.executable, *command], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
        process.wait()


def raylet_of(node: subprocess.Popen) -> psutil.Process:
    """The process that is the node, once it is up."""
    deadline = time.monotonic() + 300
    while True:
        assert node.poll() is None and time.monotonic() < deadline, "the node did not come up"
        for child in psutil.Process(node.pid).children():
            if child.name() == "raylet":
                return child
        time.sleep(0.1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "documents.parquet"
    rows = [str(row) for row in range(150)]
    pq.write_table(pa.table({"id": rows, "title": [""] * 150, "text": [f"text {row}" for row in rows]}), path)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_node_killed_in_the_middle_costs_nothing_but_time(corpus, tmp_path):
    port, store, ready = free_port(), tmp_path / "ray", tmp_path / "ready"
    ready.mkdir()
    driver = [__file__, str(corpus), str(store), str(ready), f"{LOOPBACK}:{port}"]
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder,  # short: sockets
        running(*NODE, "--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false") as head,
    ):
        raylet_of(head)
        with running(*NODE, f"--address={LOOPBACK}:{port}") as second, running(*driver) as process:
            deadline = time.monotonic() + 300
            while len([*store.glob("embeddings-*")]) < 5:
                assert process.poll() is None and time.monotonic() < deadline, "the job ended before a node was killed"
                time.sleep(0.05)
            raylet_of(second).kill()
            assert process.wait(300) == 0
    plain = encode_corpus(
        pq.read_table(corpus), SlowEncoder(ready, 0), tmp_path / "plain", 4, 5, show_progress_bar=False
    )
    assert contents(store) == contents(plain.path)


def test_without_ray_the_extra_is_named(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"amer\[ray\]"):
        encode_corpus_with_ray(corpus, partial(SlowEncoder, tmp_path, 0), tmp_path / "store")


if __name__ == "__main__":
    corpus_file, output, both_ready, cluster = sys.argv[1:]
    make_encoder = partial(SlowEncoder, Path(both_ready), 0.2)
    encode_corpus_with_ray(corpus_file, make_encoder, output, 4, 5, address=cluster, num_actors=2)
