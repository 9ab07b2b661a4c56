"""`amer corpus`: what it exports it imports again; it verifies, and refuses half a source."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from amer.corpus import DocumentStore, write_store
from amer.corpus.importing import import_table
from tests.commands.running import amer

ENCODER = {"name": "org/encoder", "revision": "main", "query_prompt": "query: "}
NAMED = ["--encoder", "org/encoder", "--revision", "main", "--query-prompt", "query: "]
DOCUMENTS = pa.table({"id": ["a", "b"], "title": ["", ""], "text": ["x", "y"], "year": [1990, 1991]})


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    return write_store(tmp_path / "store", DOCUMENTS, np.eye(2, dtype=np.float32), ENCODER, shard_size=65_536)


def run(*arguments) -> None:
    amer("corpus", *arguments)


def test_what_was_exported_is_imported_as_the_same_store(store, tmp_path, capsys):
    pq.write_table(DOCUMENTS, tmp_path / "documents.parquet")
    run("export", store.path, "--npy", tmp_path / "vectors.npy")
    run("export", store.path, "--parquet", tmp_path / "store.parquet")
    source = ["--vectors", tmp_path / "vectors.npy", "--documents", tmp_path / "documents.parquet"]
    run("import", *NAMED, *source, "--output", tmp_path / "from_npy")
    run("import", *NAMED, "--table", tmp_path / "store.parquet", "--output", tmp_path / "from_parquet")
    assert "2 documents, 2 values each, float16" in capsys.readouterr().out
    for name in ("from_npy", "from_parquet"):
        assert DocumentStore.open(tmp_path / name).identity == store.identity


def test_a_saved_dataset_is_imported(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({**DOCUMENTS.to_pydict(), "v": [[3.0, 0.0], [0.0, 2.0]]}).save_to_disk(tmp_path / "saved")
    options = ["--embedding", "v", "--normalize", "--dtype", "float32"]
    run("import", *NAMED, "--table", tmp_path / "saved", "--output", tmp_path / "store", *options)
    assert DocumentStore.open(tmp_path / "store").vectors([0, 1]).tolist() == [[1, 0], [0, 1]]


def test_a_split_of_a_saved_dataset_is_imported(tmp_path):
    from datasets import Dataset, DatasetDict

    table = Dataset.from_dict({**DOCUMENTS.to_pydict(), "v": [[1.0, 0.0], [0.0, 1.0]]})
    DatasetDict(train=table, test=table.select([1])).save_to_disk(tmp_path / "saved")
    source = ["--table", tmp_path / "saved", "--embedding", "v"]
    for split, ids in (("train", ["a", "b"]), ("test", ["b"])):
        run("import", *NAMED, *source, "--split", split, "--output", tmp_path / split)
        assert DocumentStore.open(tmp_path / split).ids.to_pylist() == ids
    with pytest.raises(ValueError, match="no split 'dev': choose --split from train, test"):
        run("import", *NAMED, *source, "--split", "dev", "--output", tmp_path / "dev")
    with pytest.raises(TypeError, match="got the splits train, test: pass one"):
        import_table(tmp_path / "dev", DatasetDict(train=table, test=table), ENCODER, "v")


def test_a_dataset_that_cannot_be_reached_is_named(tmp_path):
    with pytest.raises(OSError, match=r"nosuch/name is neither a data set saved in a local folder nor one on the Hub"):
        run("import", *NAMED, "--table", "nosuch/name", "--output", tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="empty is neither a data set"):
        run("import", *NAMED, "--table", tmp_path / "empty", "--output", tmp_path / "store")


def test_an_index_is_not_tuned_with_a_file_that_is_none(store, tmp_path):
    pq.write_table(DOCUMENTS, tmp_path / "x.npy")
    with pytest.raises(OSError, match=r"x\.npy is truncated, damaged or not a \.npy file"):
        amer("index", "build", "--store", store.path, "--output", tmp_path / "i", "--queries", tmp_path / "x.npy")


def test_a_damaged_store_does_not_pass(store, capsys):
    run("verify", store.path)
    assert "all of its 2 documents" in capsys.readouterr().out
    file = next(store.path.glob("embeddings-*"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(OSError, match="damaged"):
        run("verify", store.path)


@pytest.mark.parametrize("source", [["--vectors", "v.npy"], ["--table", "t.parquet", "--documents", "d.parquet"], []])
def test_half_a_source_is_refused(source):
    with pytest.raises(typer.BadParameter, match="--documents"):
        run("import", *NAMED, *source, "--output", "out")
