"""Import and export: what goes out comes in again as the same store, and what is no set of unit vectors is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from amer.corpus import importing
from amer.corpus.exporting import export_npy, export_parquet
from amer.corpus.importing import import_table, import_vectors
from amer.corpus.store import DocumentStore, write_store

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
COUNT, DIM = 37, 8
ENCODER = {"name": "toy"}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(importing, "BLOCK", 10)
    monkeypatch.setattr("amer.corpus.exporting.BLOCK", 10)


def make_vectors(count: int = COUNT) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)


def make_documents() -> pa.Table:
    names = [f"d{row}" for row in range(COUNT)]
    years = pa.array(range(1980, 1980 + COUNT), pa.int64())
    return pa.table({"id": names, "title": [""] * COUNT, "text": [f"text of {name}" for name in names], "year": years})


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    return write_store(tmp_path / "store", make_documents(), make_vectors(), ENCODER, shard_size=9)


def added(index: faiss.Index) -> faiss.Index:
    index.train(make_vectors())
    index.add(make_vectors())
    return index


def with_own_ids() -> faiss.Index:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    index.add_with_ids(make_vectors(), np.arange(COUNT) * 7 + 100)
    return index


SOURCES = {
    "array": make_vectors,
    "float64 array": lambda: make_vectors().astype(np.float64),
    "tensor": lambda: torch.from_numpy(make_vectors()),
    "bfloat16 tensor that has a gradient": lambda: (
        torch.eye(DIM)[torch.arange(COUNT) % DIM].bfloat16().requires_grad_()
    ),
    "list of arrays": lambda: list(make_vectors()),
    "list of tensors": lambda: list(torch.from_numpy(make_vectors())),
    "flat index": lambda: added(faiss.IndexFlatIP(DIM)),
    "index of halves": lambda: added(faiss.index_factory(DIM, "SQfp16", faiss.METRIC_INNER_PRODUCT)),
    "inverted lists": lambda: added(faiss.index_factory(DIM, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)),
    "inverted lists of halves": lambda: added(faiss.index_factory(DIM, "IVF4,SQfp16", faiss.METRIC_L2)),
    "graph": lambda: added(faiss.index_factory(DIM, "HNSW8", faiss.METRIC_INNER_PRODUCT)),
    "index with ids of its own": with_own_ids,
}


HALVES = SOURCES["inverted lists of halves"]


def as_array(source) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        return source.detach().float().numpy()
    return make_vectors()


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_vectors_come_in_however_they_are_given(tmp_path, make):
    source = make()
    store = import_vectors(tmp_path / "store", make_documents(), source, ENCODER, show_progress_bar=False)
    # an index of inverted lists of halves keeps differences from their centres
    np.testing.assert_allclose(store.vectors(np.arange(COUNT)), as_array(source), rtol=0, atol=5e-4 * (make is HALVES))
    assert store.documents([5])[0] == make_documents().to_pylist()[5]
    store.verify()


@pytest.mark.parametrize(
    "name", ["flat index", "index of halves", "inverted lists", "graph", "index with ids of its own"]
)
def test_an_index_is_read_from_its_file(tmp_path, name):
    faiss.write_index(SOURCES[name](), str(tmp_path / "index.faiss"))
    store = import_vectors(tmp_path / "store", make_documents(), tmp_path / "index.faiss", ENCODER)
    np.testing.assert_array_equal(store.vectors(np.arange(COUNT)), make_vectors())


def with_ids(ids) -> faiss.Index:
    """The three axes, added with these ids."""
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(3))
    index.add_with_ids(np.eye(3, dtype="float32")[np.argsort(np.argsort(ids))], np.array(ids, dtype=np.int64))
    return index


@pytest.mark.parametrize("ids", [[2, 0, 1], [0, 1, 2], [1, 2, 0], [10, 20, 35]])
def test_ids_that_an_index_was_filled_with_decide_the_rows(tmp_path, ids):
    faiss.write_index(with_ids(ids), str(tmp_path / "ids.faiss"))
    documents = pa.table({"id": list("abc"), "title": [""] * 3, "text": list("abc")})
    store = import_vectors(tmp_path / "store", documents, tmp_path / "ids.faiss", ENCODER)
    np.testing.assert_array_equal(store.vectors([0, 1, 2]), np.eye(3))


@pytest.mark.parametrize("ids", [[7, 5, 6], [0, 0, 1], [2, 1, 3], [5, 5, 5]])
def test_ids_from_which_no_order_follows_are_refused(tmp_path, ids):
    documents = pa.table({"id": list("abc"), "title": [""] * 3, "text": list("abc")})
    with pytest.raises(ValueError, match="neither ascending nor the numbers 0 to 2"):
        import_vectors(tmp_path / "store", documents, with_ids(ids), ENCODER)


@pytest.mark.parametrize("factory", ["PQ4x4", "IVF2,PQ4x4", "SQ8", "HNSW8,SQ8"])
def test_an_index_that_lost_its_vectors_is_refused(tmp_path, factory):
    index = added(faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT))
    with pytest.raises(ValueError, match="keeps codes"):
        import_vectors(tmp_path / "store", make_documents(), index, ENCODER, normalize=True)
    assert not (tmp_path / "store").exists()


def test_an_index_that_lost_the_order_is_refused(tmp_path):
    index = faiss.index_factory(DIM, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(make_vectors())
    index.add_with_ids(make_vectors(), np.arange(COUNT) * 7 + 100)
    with pytest.raises(ValueError, match="the order is lost"):
        import_vectors(tmp_path / "store", make_documents(), index, ENCODER)


def test_an_export_of_a_damaged_store_names_what_is_damaged(store, tmp_path):
    (store.path / "embeddings-00001-of-00005.npy").unlink()
    for export in (export_npy, export_parquet):
        with pytest.raises(FileNotFoundError, match=r"embeddings-00001-of-00005\.npy is missing"):
            export(store, tmp_path / "out")


def test_a_store_goes_out_as_an_array_and_comes_in_the_same(store, tmp_path):
    export_npy(store, tmp_path / "vectors.npy", show_progress_bar=False)
    exported = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert exported.dtype == np.float16
    np.testing.assert_array_equal(exported, make_vectors())
    again = import_vectors(tmp_path / "again", make_documents(), tmp_path / "vectors.npy", ENCODER, shard_size=9)
    assert again.identity == store.identity


def test_sentence_transformers_searches_an_exported_array(store, tmp_path):
    from sentence_transformers.util import semantic_search

    export_npy(store, tmp_path / "vectors.npy")
    corpus = torch.from_numpy(np.load(tmp_path / "vectors.npy")).float()
    hits = semantic_search(torch.from_numpy(make_vectors()), corpus, top_k=1)
    assert [found[0]["corpus_id"] for found in hits] == list(range(COUNT))


def test_a_store_goes_out_as_a_dataset_and_comes_in_the_same(store, tmp_path):
    from datasets import Dataset

    export_parquet(store, tmp_path / "store.parquet", show_progress_bar=False)
    dataset = Dataset.from_parquet(str(tmp_path / "store.parquet"), cache_dir=str(tmp_path / "cache"))
    assert dataset.column_names == ["id", "title", "text", "year", "embedding"]
    np.testing.assert_array_equal(np.array(dataset["embedding"], dtype=np.float32), make_vectors())
    for name, given in (("file", tmp_path / "store.parquet"), ("dataset", dataset), ("table", dataset.data.table)):
        assert import_table(tmp_path / name, given, ENCODER, shard_size=9).identity == store.identity


def test_a_selection_of_a_dataset_comes_in_as_it_is_selected(tmp_path):
    from datasets import Dataset

    columns = {**make_documents().to_pydict(), "vectors": make_vectors().tolist()}
    dataset = Dataset.from_dict(columns).select([4, 2, 30])
    store = import_table(tmp_path / "store", dataset, ENCODER, embedding="vectors")
    assert store.ids.to_pylist() == ["d4", "d2", "d30"]
    np.testing.assert_array_equal(store.vectors([0, 1, 2]), make_vectors()[[4, 2, 30]])


def test_float32_stays_float32(tmp_path):
    vectors = np.linalg.qr(np.random.default_rng(1).standard_normal((COUNT, COUNT)))[0].astype(np.float32)
    store = import_vectors(tmp_path / "store", make_documents(), vectors, ENCODER, dtype="float32")
    export_parquet(store, tmp_path / "store.parquet")
    again = import_table(tmp_path / "again", tmp_path / "store.parquet", ENCODER, dtype="float32")
    np.testing.assert_array_equal(again.vectors(np.arange(COUNT)), vectors)


def test_vectors_are_normalised_when_asked_and_refused_else(tmp_path):
    with pytest.raises(ValueError, match="length 3"):
        import_vectors(tmp_path / "store", make_documents(), make_vectors() * 3, ENCODER)
    store = import_vectors(tmp_path / "store", make_documents(), make_vectors() * 3, ENCODER, normalize=True)
    np.testing.assert_allclose(store.vectors(np.arange(COUNT)), make_vectors(), atol=1e-3)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_cannot_be_normalised(tmp_path, bad):
    vectors = make_vectors()
    vectors[33] *= bad
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=r"row 33 has length"):
        import_vectors(tmp_path / "store", make_documents(), vectors, ENCODER, normalize=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_one_vector_for_each_document_is_refused(tmp_path):
    path, documents = tmp_path / "store", make_documents()
    with pytest.raises(ValueError, match="37 documents but 36 vectors"):
        import_vectors(path, documents, make_vectors(36), ENCODER)
    with pytest.raises(TypeError, match=r"FAISS index or a file, got <class 'set'>"):
        import_vectors(path, documents, {1, 2}, ENCODER)
    with pytest.raises(ValueError, match=r"no column 'embedding'.*id, title, text, year"):
        import_table(path, documents, ENCODER)
    with pytest.raises(TypeError, match="a Dataset or a parquet file"):
        import_table(path, {"id": []}, ENCODER)
    lists = make_vectors().tolist()
    ragged = documents.append_column("embedding", [[*lists[:-2], lists[-2][:4], lists[-1] + lists[-2][4:]]])
    with pytest.raises(ValueError, match="rows 30 to 36 differ in size"):
        import_table(path, ragged, ENCODER)
    with pytest.raises(ValueError, match=r"must hold lists"):
        import_table(path, documents, ENCODER, embedding="year")
    with pytest.raises(ValueError, match="1 nulls"):
        import_table(path, documents.append_column("embedding", [[None, *lists[1:]]]), ENCODER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["vectors.npy", "index.faiss", "table.parquet"])
def test_files_that_are_none_are_named(tmp_path, name):
    def given() -> DocumentStore:
        if name == "table.parquet":
            return import_table(tmp_path / "store", tmp_path / name, ENCODER)
        return import_vectors(tmp_path / "store", make_documents(), tmp_path / name, ENCODER)

    with pytest.raises(FileNotFoundError, match=name):
        given()
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(OSError, match=rf"{name} is truncated"):
        given()
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_pickled_array_is_never_loaded(tmp_path):
    np.save(tmp_path / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(OSError, match=r"vectors\.npy"):
        import_vectors(tmp_path / "store", make_documents(), tmp_path / "vectors.npy", ENCODER)


FULL = """
import resource, sys
from amer.corpus.exporting import export_npy, export_parquet
from amer.corpus.store import DocumentStore

store = DocumentStore.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
try:
    {"npy": export_npy, "parquet": export_parquet}[sys.argv[2]](store, sys.argv[3])
except OSError as error:
    sys.exit(f"OSError: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_an_export_that_finds_the_disk_full_says_so_and_leaves_nothing(store, tmp_path, kind):
    file = tmp_path / "out" / f"vectors.{kind}"
    command = [sys.executable, "-c", FULL, str(store.path), kind, str(file)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, "OSError: " in ended.stderr) == (1, True), ended.stderr
    assert list(file.parent.iterdir()) == []


def test_documents_in_parquet_keep_what_pyarrow_wrote(store, tmp_path):
    export_parquet(store, tmp_path / "store.parquet")
    assert pq.read_table(tmp_path / "store.parquet", columns=["id", "year"]).to_pydict() == {
        "id": make_documents()["id"].to_pylist(),
        "year": make_documents()["year"].to_pylist(),
    }
