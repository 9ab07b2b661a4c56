"""Questions a second and latency of `amer serve` over HTTP, with batches of concurrent requests and without.

Clients ask one question after another, each as soon as the last is answered. "one at a time" is the same service with
batches of one question. Without `--model`, it is an untrained anchored SmolLM2-135M: as fast as a trained one.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import Row, run

from amer.corpus import DocumentStore
from amer.offline import SMOLLM2, resolve_model
from modeling_amer import AMERModel

SYSTEMS = {"one at a time": ("--max-questions", "1", "--max-batch-questions", "1"), "batched": ()}
READY = re.compile(r"ready: (http://\S+)")
QUESTIONS = 1_000  # distinct ones


OPTIONS = {
    "model": (str, "a trained model's folder"),
    "store": (Path, "a document store's folder; its texts are asked for", {"required": True}),
    "index": (str, "as for `amer serve`"),
    "clients": ([1, 8, 32], "concurrent clients"),
    "seconds": (110.0, "for each number of clients and each system"),
    "vectors": (5, "m, query vectors of each question"),
    "k": (100, "documents a question"),
}


def save_untrained(store: DocumentStore, folder: Path) -> str:
    """An untrained anchored model of the store's encoder."""
    model = AMERModel.from_base(
        resolve_model(SMOLLM2), document_dim=store.dim, document_encoder=store.encoder, anchored=True
    )
    model.save_pretrained(folder)
    return str(folder)


def questions_of(store: DocumentStore, seed: int) -> list[str]:
    """The beginnings of some documents."""
    rows = np.random.default_rng(seed).choice(len(store), min(QUESTIONS, len(store)), replace=False)
    return [document["text"][:60] for document in store.documents(rows) if document["text"].strip()]


@contextmanager
def serving(model: str, arguments: argparse.Namespace, *options: str) -> Iterator[str]:
    """The service in a process of its own; yields its address."""
    command = [sys.executable, "-m", "amer", "serve", "--model", model, "--store", str(arguments.store)]
    command += ["--device", arguments.device, "--port", "0", *options]
    command += ["--index", arguments.index] if arguments.index else []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := READY.search(line):
                yield found.group(1)
                return
        raise RuntimeError(f"the service did not start:\n{''.join(said)}")
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


async def load(address: str, questions: list[str], clients: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the clients saw: requests, errors, rate and latencies."""
    seconds: list[float] = []
    errors, numbers = 0, count()
    start = time.perf_counter()
    end = start + arguments.seconds

    async def client(connection: httpx.AsyncClient) -> None:
        nonlocal errors
        while time.perf_counter() < end:
            body = {"questions": [questions[next(numbers) % len(questions)]], "k": arguments.k}
            asked = time.perf_counter()
            try:
                answer = await connection.post("/search", json={**body, "num_query_vectors": arguments.vectors})
                errors += answer.status_code != 200
            except httpx.HTTPError:
                errors += 1
            seconds.append(time.perf_counter() - asked)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as connection:
        await asyncio.gather(*(client(connection) for _ in range(clients)))
    p50, p99 = np.percentile(seconds, [50, 99]) * 1_000
    rate = len(seconds) / (time.perf_counter() - start)
    return {"requests": len(seconds), "errors": errors, "requests/s": rate, "p50 ms": float(p50), "p99 ms": float(p99)}


def compare(model: str, questions: list[str], arguments: argparse.Namespace) -> list[Row]:
    """A row for each number of clients and system; the ratio is to one at a time."""
    rows: list[Row] = []
    for system, options in SYSTEMS.items():
        with serving(model, arguments, *options) as address:
            for clients in arguments.clients:
                figures = asyncio.run(load(address, questions, clients, arguments))
                rows.append({"clients": clients, "system": system, **figures})
    slow = {row["clients"]: row["requests/s"] for row in rows if row["system"] == next(iter(SYSTEMS))}
    for row in rows:
        row["ratio"] = row["requests/s"] / slow[row["clients"]]
    return sorted(rows, key=lambda row: row["clients"])


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Serve the model and ask."""
    store = DocumentStore.open(arguments.store)
    questions = questions_of(store, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        return compare(arguments.model or save_untrained(store, Path(folder) / "model"), questions, arguments)


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
