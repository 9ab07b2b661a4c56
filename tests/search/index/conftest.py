"""A small corpus with metadata, and a Milvus server where a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus.store import DocumentStore, write_store
from tests.milvus_server import MilvusServer

CORPUS, CORPUS_DIM, CLUSTERS = 3_000, 32, 60
INTEGERS = [-(2**63), -(2**63) + 1, -17, -1, 0, 1, 2**53 + 1, 2**63 - 1]
NOTES = [
    "it's",
    'say "a"',
    "back\\slash",
    "a tab\there",
    "lines\r\nbreak",
    "ends in \\",
    "a\\n",
    "日本語 é 😀",
    "\u2028\x7f",
    "'",
    "",
]


def clustered(count: int, seed: int) -> np.ndarray:
    """`(count, dim)` unit vectors around the same centres, as real embeddings stand around topics."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, CORPUS_DIM))
    generator = np.random.default_rng(seed)
    vectors = centres[generator.integers(0, CLUSTERS, count)] + 0.7 * generator.standard_normal((count, CORPUS_DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_corpus(path, encoder: str = "toy") -> DocumentStore:
    """A store with metadata of every type."""
    rows = range(CORPUS)
    names = [str(row) for row in rows]
    documents = {
        **{name: names for name in ("id", "title", "text")},
        "language": [("en", "de", 'zh "中"')[row % 3] for row in rows],
        "year": [1900 + row % 120 for row in rows],
        "weight": [row / CORPUS for row in rows],
        "balance": [(row % 41 - 20) / 4 for row in rows],
        "serial": [INTEGERS[row % len(INTEGERS)] for row in rows],
        "note": [NOTES[row % len(NOTES)] for row in rows],
        "stub": [row % 7 == 0 for row in rows],
    }
    return write_store(path, pa.table(documents), clustered(CORPUS, seed=1), {"name": encoder}, shard_size=700)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> DocumentStore:
    return make_corpus(tmp_path_factory.mktemp("corpus") / "store")


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory) -> Iterator[MilvusServer]:
    """A real Milvus server, started once a session; tests that ask for it share a file, so that one process does."""
    pytest.importorskip("milvus")
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
        yield server
    finally:
        server.remove()
