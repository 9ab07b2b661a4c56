"""open_index: a location tells which index it is, and nothing is searched in the place of what is not there."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus import DocumentStore, write_store
from amer.search import ExactIndex, FaissIndex, open_index
from amer.search.index.milvus.index import MilvusIndex

needs_milvus = pytest.mark.skipif(find_spec("milvus_lite") is None, reason="needs the extra `milvus-lite`")


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    documents = pa.table({name: [f"{name} {row}" for row in range(8)] for name in ("id", "title", "text")})
    return write_store(tmp_path / "store", documents, np.eye(8), {"name": "toy"})


@needs_milvus
def test_the_location_says_which_index_it_is(store, tmp_path):
    FaissIndex.build(store, tmp_path / "index", "flat", show_progress_bar=False)
    MilvusIndex.build(store, str(tmp_path / "milvus.db"), "docs", show_progress_bar=False).close()
    kinds = {None: ExactIndex, tmp_path / "index": FaissIndex, str(tmp_path / "milvus.db"): MilvusIndex}
    queries = np.eye(8, dtype=np.float32)[:, None]
    for location, kind in kinds.items():
        index = open_index(store, location, collection="docs")
        assert isinstance(index, kind)
        rows, scores = index.search(queries, 1)
        assert rows[:, 0, 0].tolist() == list(range(8))
        assert scores[:, 0, 0].tolist() == [1.0] * 8


@pytest.mark.parametrize("device", ["cuda", ["cuda:0", "cuda:1"]])
def test_the_device_is_that_of_exact_search_and_faiss_stays_on_the_cpu(store, tmp_path, device):
    FaissIndex.build(store, tmp_path / "index", "flat", show_progress_bar=False)
    rows, _ = open_index(store, tmp_path / "index", device).search(np.eye(8, dtype=np.float32)[:, None], 1)
    assert rows[:, 0, 0].tolist() == list(range(8))


@pytest.mark.parametrize("location", ["nowhere", "nowhere.db"])
def test_a_location_with_nothing_there_is_refused(store, tmp_path, location):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*build"):
        open_index(store, tmp_path / location)


@needs_milvus
def test_another_collection_than_the_one_built_is_refused(store, tmp_path):
    MilvusIndex.build(store, str(tmp_path / "milvus.db"), "docs", show_progress_bar=False).close()
    with pytest.raises(ValueError, match="no collection 'amer'"):
        open_index(store, tmp_path / "milvus.db")
