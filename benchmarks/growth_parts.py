"""One part of `growth.py` in a separate process: prints its seconds, CPU seconds and peak memory as JSON.

Peak memory excludes the imports, and includes the mapped files that were read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import torch

from amer.corpus import DocumentStore, encode_corpus, write_store
from amer.corpus.encoder import DocumentEncoder
from amer.search import FaissIndex, Searcher, open_index
from amer.service import Settings, create_app
from modeling_amer import AMERConfig

CENTRES = 1_000  # number of centres around which synthetic vectors lie, as documents around their subjects
SPREAD = 0.5
BLOCK = 2**14
QUESTIONS, VECTORS, K = 20, 5, 10
Part = Callable[[argparse.Namespace], object]


def documents(rows: int) -> pa.Table:
    """Make documents with texts of twelve words."""
    words = ["bank", "river", "spring", "metal", "water", "coil", "money", "source", "season", "shore", "loan", "flow"]
    names = [str(row) for row in range(rows)]
    texts = [" ".join(words[(row * step) % len(words)] for step in range(1, 13)) for row in range(rows)]
    return pa.table({"id": names, "title": names, "text": texts})


def vectors(rows: int, dim: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield unit vectors `(block, dim)` around random centres."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((CENTRES, dim), dtype=np.float32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        block = centres[draw.integers(CENTRES, size=count)]
        block = block + SPREAD * draw.standard_normal((count, dim), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


class SyntheticModel:
    """Implements the parts of a model that a `Searcher` uses; draws query vectors as document vectors are drawn."""

    def __init__(self, store: DocumentStore) -> None:
        self.config = AMERConfig(
            name_or_path="synthetic",
            document_encoder=store.encoder,
            document_dim=store.dim,
            num_query_vectors=VECTORS,
        )

    def encode_query(self, texts: list[str], **_: object) -> torch.Tensor:
        """Draw query vectors `(n, m, dim)`."""
        drawn = next(vectors(len(texts) * VECTORS, self.config.document_dim, seed=sum(map(ord, texts[0]))))
        return torch.from_numpy(drawn).view(len(texts), VECTORS, -1)


def encode(arguments: argparse.Namespace) -> None:
    """Embed texts with a real encoder into a store."""
    encoder = DocumentEncoder(arguments.encoder, device="cpu", dtype="auto")  # as `amer corpus encode`
    encode_corpus(documents(arguments.rows), encoder, arguments.folder / "encoded", show_progress_bar=False)


def write(arguments: argparse.Namespace) -> None:
    """Make a store of synthetic vectors."""
    found = vectors(arguments.rows, arguments.dim)
    write_store(arguments.folder / "store", documents(arguments.rows), found, {"name": "synthetic"})


def build(arguments: argparse.Namespace) -> None:
    """Build an index of 4-bit codes and tune it."""
    store = DocumentStore.open(arguments.folder / "store")
    FaissIndex.build(store, arguments.folder / "index", arguments.preset, recall=0.9)


def open_both(arguments: argparse.Namespace) -> Searcher:
    """Open the store and the index."""
    store = DocumentStore.open(arguments.folder / "store")
    index = arguments.folder / "index"
    return Searcher(SyntheticModel(store), open_index(store, index if index.is_dir() else None, "cpu"))


def search(arguments: argparse.Namespace) -> None:
    """Open store and index, and search some questions, one after another."""
    searcher = open_both(arguments)
    for number in range(QUESTIONS):
        searcher.search(f"question {number}", K)


def search_exactly(arguments: argparse.Namespace) -> None:
    """Like `search`, without an index."""
    store = DocumentStore.open(arguments.folder / "store")
    searcher = Searcher(SyntheticModel(store), open_index(store, None, "cpu"))
    for number in range(QUESTIONS):
        searcher.search(f"question {number}", K)


def serve(arguments: argparse.Namespace) -> None:
    """Open store and index, and answer the questions as the service does, without a network."""
    app = create_app(open_both(arguments), Settings(cache_size=0))

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.state.batcher.running(),
            httpx.AsyncClient(transport=transport, base_url="http://here") as client,
        ):
            for number in range(QUESTIONS):
                answer = await client.post("/search", json={"questions": [f"question {number}"], "k": K})
                answer.raise_for_status()

    asyncio.run(ask())


PARTS: dict[str, Part] = {
    "encode": encode,
    "write": write,
    "build": build,
    "open": open_both,
    "search": search,
    "search, exact": search_exactly,
    "serve": serve,
}


def resident(name: str) -> float:
    """Memory of this process in MB, by the kernel's count: `VmRSS` is the current value, `VmHWM` the peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("dim", type=int)
    parser.add_argument("encoder")
    parser.add_argument("preset")
    given = parser.parse_args()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    PARTS[given.part](given)
    figures = {"seconds": time.perf_counter() - start, "CPU seconds": time.process_time() - cpu}
    sys.stdout.write(json.dumps({**figures, "peak MB": max(0.0, resident("VmHWM") - before)}))
