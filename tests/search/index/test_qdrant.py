"""Qdrant: collections that are not what they should be. What it finds is asked by test_battery.py."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="needs the extra `qdrant`")

import pyarrow as pa
from qdrant_client import QdrantClient, models

from amer.corpus.store import DocumentStore, write_store
from amer.search.index import ExactIndex
from amer.search.index.qdrant import QdrantIndex


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    names = [f"d{row}" for row in range(12)]
    vectors = np.random.default_rng(0).standard_normal((12, 4))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    documents = pa.table({"id": names, "title": names, "text": names, "year": list(range(12))})
    return write_store(tmp_path / "store", documents, unit, {"name": "toy"})


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


def test_an_upload_that_broke_off_is_refused_until_it_is_built_again(store, client, monkeypatch):
    monkeypatch.setattr("amer.search.index.qdrant.index.BATCH_ROWS", 5)
    upsert, calls = client.upsert, []

    def breaks(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise ConnectionError("gone")
        return upsert(*arguments, **options)

    monkeypatch.setattr(client, "upsert", breaks)
    with pytest.raises(ConnectionError):
        QdrantIndex.build(store, client, "passages", show_progress_bar=False)
    with pytest.raises(ValueError, match=r"holds 10 of 12 documents: run QdrantIndex\.build again"):
        QdrantIndex.open(store, client, "passages")
    index = QdrantIndex.build(store, client, "passages", show_progress_bar=False)
    questions = store.vectors([[3, 7]])
    for found, wanted in zip(index.search(questions, 5), ExactIndex(store).search(questions, 5), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_collection_of_another_hand_is_refused(store, client):
    vectors = models.VectorParams(size=4, distance=models.Distance.DOT)
    client.create_collection("theirs", vectors)
    for use in (QdrantIndex.open, QdrantIndex.build):
        with pytest.raises(ValueError, match=r"'theirs' was not built from the store .* build under another name"):
            use(store, client, "theirs")
    with pytest.raises(ValueError, match=r"no collection 'none': build it with QdrantIndex\.build"):
        QdrantIndex.open(store, client, "none")
