"""Latency, questions per second, CPU time and memory of `amer serve` over HTTP, compared with the encoder alone.

Each client asks its next question when the last is answered. All services start first. Then the clients ask them in
turns for some seconds each, `--repeats` times, so that other load on the machine affects all services alike:

- "encoder alone": the document encoder's vector and the same index, in the same service
- "one at a time": AMER in batches of one question
- "AMER": concurrent questions are searched together; every question is new
- "AMER, asked again": repeated questions, from the service's cache

Without `--model`, the model is an untrained anchored SmolLM2-135M, which is as fast as a trained one.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pyarrow.parquet as pq
from common import Row, run

from amer.corpus import DocumentStore
from amer.offline import SMOLLM2, resolve_model
from modeling_amer import AMERModel

SYSTEMS = {
    "encoder alone": (),
    "one at a time": ("--cache-size", "0", "--max-questions", "1", "--max-batch-questions", "1"),
    "AMER": ("--cache-size", "0"),
    "AMER, asked again": (),
}
READY = re.compile(r"ready: (http://\S+)")
QUESTIONS = 1_000  # distinct questions
REPEATED = 64  # questions to ask repeatedly
MB = 2**20


OPTIONS = {
    "model": (str, "a trained model's folder"),
    "store": (Path, "a document store's folder", {"required": True}),
    "questions": (Path, "a split of a dataset, as Parquet; default: the beginnings of documents"),
    "index": (str, "--index of `amer serve`"),
    "model_dtype": ("float32", "--dtype of `amer serve`"),
    "systems": (list(SYSTEMS), "systems to measure"),
    "clients": ([1, 32], "concurrent clients"),
    "seconds": (60.0, "seconds for each number of clients and each system"),
    "vectors": (0, "m, query vectors of each question; 0 lets the model choose"),
    "k": (10, "documents per question"),
}


@dataclass
class Service:
    """A service in a separate process, and the measurements of its clients."""

    address: str
    process: psutil.Process
    seconds: dict[int, list[float]] = field(default_factory=dict)  # number of clients -> seconds of each question
    errors: dict[int, int] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)  # bytes after each slice


def save_untrained(store: DocumentStore, folder: Path) -> str:
    """Save an untrained anchored model for the store's encoder."""
    model = AMERModel.from_base(
        resolve_model(SMOLLM2), document_dim=store.dim, document_encoder=store.encoder, anchor="vector"
    )
    model.save_pretrained(folder)
    return str(folder)


def questions_of(store: DocumentStore, arguments: argparse.Namespace) -> list[str]:
    """The questions of a split, or the beginnings of some documents, in random order."""
    draw = np.random.default_rng(arguments.seed)
    if arguments.questions is not None:
        asked = pq.read_table(arguments.questions, columns=["query"])["query"].to_pylist()
        return [asked[row] for row in draw.permutation(len(asked))[:QUESTIONS]]
    rows = draw.choice(len(store), min(QUESTIONS, len(store)), replace=False)
    return [document["text"][:60] for document in store.documents(rows) if document["text"].strip()]


@contextmanager
def serving(system: str, model: str, arguments: argparse.Namespace) -> Iterator[Service]:
    """Run the service in a separate process."""
    if system == "encoder alone":
        own = [arguments.store, arguments.index or "", arguments.device, arguments.model_dtype]
        command = [sys.executable, str(Path(__file__).with_name("encoder_service.py")), *map(str, own)]
    else:
        command = [sys.executable, "-m", "amer", "serve", "--model", model, "--store", str(arguments.store)]
        command += ["--device", arguments.device, "--port", "0", "--dtype", arguments.model_dtype, *SYSTEMS[system]]
        command += ["--index", arguments.index] if arguments.index else []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := READY.search(line):
                yield Service(found.group(1), psutil.Process(process.pid))
                return
        raise RuntimeError(f"the service did not start:\n{''.join(said)}")
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


async def load(
    service: Service, questions: Iterator[str], clients: int, seconds: float, arguments: argparse.Namespace
) -> None:
    """Ask for some seconds, and record the latencies of the clients and the CPU time and memory of the service."""
    latencies = service.seconds.setdefault(clients, [])
    before = sum(service.process.cpu_times()[:2])
    end = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            question, asked = next(questions), time.perf_counter()
            try:
                failed = await ask(session, question, arguments) != 200
            except (aiohttp.ClientError, TimeoutError):
                failed = True
            service.errors[clients] = service.errors.get(clients, 0) + failed
            latencies.append(time.perf_counter() - asked)

    async with connected(service) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    service.cpu[clients] = service.cpu.get(clients, 0) + sum(service.process.cpu_times()[:2]) - before
    service.memory.append(service.process.memory_info().rss)


def compare(services: dict[str, Service], questions: list[str], arguments: argparse.Namespace) -> list[Row]:
    """A row per number of clients and system; the ratios are to the first system."""
    once = cycle(questions)
    asked = {system: cycle(questions[:REPEATED]) if system.endswith("again") else once for system in services}
    slice_seconds = arguments.seconds / arguments.repeats
    rows: list[Row] = []
    for clients in arguments.clients:
        for _ in range(arguments.repeats):
            for system, service in services.items():
                asyncio.run(load(service, asked[system], clients, slice_seconds, arguments))
        rows += [_row(system, service, clients, arguments.seconds) for system, service in services.items()]
    first = {row["clients"]: row for row in reversed(rows)}
    for row in rows:
        plain = first[row["clients"]]
        row["p50 ratio"] = row["p50 ms"] / plain["p50 ms"]
        row["CPU ratio"] = row["CPU ms/request"] / plain["CPU ms/request"]
    return rows


def _row(system: str, service: Service, clients: int, seconds: float) -> Row:
    latencies = service.seconds[clients]
    p50, p99 = np.percentile(latencies, [50, 99]) * 1_000
    return {
        "clients": clients,
        "system": system,
        "requests": len(latencies),
        "errors": service.errors[clients],
        "requests/s": len(latencies) / seconds,
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "CPU ms/request": 1_000 * service.cpu[clients] / len(latencies),
        "MB at first": service.memory[0] / MB,
        "MB at last": service.memory[-1] / MB,
    }


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Serve the model and ask."""
    store = DocumentStore.open(arguments.store)
    questions = questions_of(store, arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_services:
        model = arguments.model or save_untrained(store, Path(folder) / "model")
        services = {
            system: open_services.enter_context(serving(system, model, arguments)) for system in arguments.systems
        }
        if again := services.get("AMER, asked again"):  # ask each question once before measuring
            asyncio.run(ask_each(again, questions[:REPEATED], arguments))
        return compare(services, questions, arguments)


async def ask_each(service: Service, questions: list[str], arguments: argparse.Namespace) -> None:
    """Ask every question once."""
    async with connected(service) as session:
        for question in questions:
            await ask(session, question, arguments)


async def ask(session: aiohttp.ClientSession, question: str, arguments: argparse.Namespace) -> int:
    """Ask one question and read the whole answer. Returns the status; from 400 on, raises `aiohttp.ClientError`."""
    body = {"questions": [question], "k": arguments.k}
    if arguments.vectors:
        body["num_query_vectors"] = arguments.vectors
    async with session.post("/search", json=body) as answer:
        answer.raise_for_status()
        await answer.read()
        return answer.status


def connected(service: Service) -> aiohttp.ClientSession:
    """The connections of some clients. aiohttp takes a fraction of httpx's time, which the service needs here."""
    unlimited = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(service.address, connector=unlimited, timeout=aiohttp.ClientTimeout(60))


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
