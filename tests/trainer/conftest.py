"""A small world: documents with known vectors, questions with one to three targets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus import write_store
from amer.data import RetrievalDataset
from tests.conftest import DIM

ENCODER = {"name": "hand-made", "revision": None, "document_prompt": "", "query_prompt": ""}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> SimpleNamespace:
    return small_world(tmp_path_factory.mktemp("world"))


def small_world(folder: Path) -> SimpleNamespace:
    """60 documents and 24 questions; every third question has one target, the others two or three."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"d{i}" for i in range(60)]
    table = pa.table({"id": ids, "title": [""] * 60, "text": [f"text {i}" for i in range(60)]})
    store = write_store(folder / "store", table, vectors, ENCODER, dtype="float32")
    targets = [[[f"d{2 * i + j}"] for j in range(1 + i % 3)] for i in range(24)]
    targets[1] = [["d2", "d50"], ["d3"]]  # a cluster of two documents
    dataset = RetrievalDataset(
        query_ids=[f"q{i}" for i in range(24)],
        queries=[f"question {'x' * i}" for i in range(24)],
        input_vectors=rng.normal(size=(24, DIM)).astype(np.float32),
        targets=targets,
        answers=[[] for _ in range(24)],
    )
    return SimpleNamespace(store=store, dataset=dataset.link(store), vectors=vectors)
