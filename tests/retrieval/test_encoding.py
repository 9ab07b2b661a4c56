"""Encoding a corpus: a killed run resumes to the bytes of an unbroken one, and never mixes two corpora or encoders.

Run as a program, this file is the run that gets killed: `python test_encoding.py STORE`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from amer.files import _temporary_beside, read_json
from amer.retrieval.encoding import encode_corpus
from amer.retrieval.store import DocumentStore

SHARD_SIZE = 4


class HashEncoder:
    """A fake encoder: a text's vector is drawn with a seed made from the text."""

    dim = 8

    def __init__(self, name: str = "hash", seconds: float = 0.0, shards_to_live: int = 1_000) -> None:
        self.identity = {"name": name, "revision": None, "document_prompt": "", "query_prompt": ""}
        self.seconds = seconds
        self.shards_to_live = shards_to_live
        self.encoded: list[str] = []

    def encode_documents(self, documents: pa.Table, batch_size: int = 256) -> np.ndarray:
        if self.shards_to_live == 0:
            raise KeyboardInterrupt
        self.shards_to_live -= 1
        time.sleep(self.seconds)
        texts = documents["text"].to_pylist()
        self.encoded += texts
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        vectors = np.stack([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_corpus(count: int = 42) -> pa.Table:
    rows = [str(row) for row in range(count)]
    return pa.table({"id": rows, "title": [""] * count, "text": [f"text {row}" for row in rows]})


def encode(path: Path, encoder: HashEncoder, documents: pa.Table | None = None, **options) -> DocumentStore:
    options = {"shard_size": SHARD_SIZE, "show_progress_bar": False, **options}
    return encode_corpus(make_corpus() if documents is None else documents, encoder, path, **options)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, bytes]:
    return contents(encode(tmp_path_factory.mktemp("unbroken") / "store", HashEncoder()).path)


def test_the_store_holds_the_corpus_and_its_vectors_in_order(tmp_path):
    store = encode(tmp_path / "store", HashEncoder(), dtype="float32")
    store.verify()
    np.testing.assert_array_equal(store.vectors(range(42)), HashEncoder().encode_documents(make_corpus()))
    assert store.documents(range(42)) == make_corpus().to_pylist()
    assert store.encoder == HashEncoder().identity
    assert not (store.path / "encoding.json").exists()


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, unbroken):
    path = tmp_path / "store"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, str(path)], env=environment)
    deadline = time.monotonic() + 60
    while len(list(path.glob("embeddings-*"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {file.name: file.stat().st_mtime_ns for file in path.glob("embeddings-*")}
    assert 3 <= len(kept) < 11
    with pytest.raises(FileNotFoundError, match="resumes"):
        DocumentStore.open(path)

    half_written = _temporary_beside(path / "embeddings-00010-of-00011.npy")  # what a kill inside a write leaves
    half_written.write_bytes(b"half a shard")
    encoder = HashEncoder()
    encode(path, encoder)
    assert contents(path) == unbroken
    assert len(encoder.encoded) == 42 - SHARD_SIZE * len(kept)
    assert {name: (path / name).stat().st_mtime_ns for name in kept} == kept


@pytest.mark.parametrize("shards", [0, 1, 10])
def test_an_interrupt_keeps_whole_shards_only(tmp_path, unbroken, shards):
    path = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        encode(path, HashEncoder(shards_to_live=shards))
    assert len(list(path.glob("embeddings-*"))) == shards
    assert list(path.glob(".*")) == []
    encode(path, HashEncoder(shards_to_live=11 - shards))
    assert contents(path) == unbroken


def test_a_kill_before_the_last_clean_up_is_repaired(tmp_path, unbroken):
    path = encode(tmp_path / "store", HashEncoder()).path
    (path / "encoding.json").write_text("{}")
    encode(path, HashEncoder(shards_to_live=0))
    assert contents(path) == unbroken


def test_a_finished_store_is_returned_without_encoding(tmp_path):
    encode(tmp_path / "store", HashEncoder())
    assert len(encode(tmp_path / "store", HashEncoder(shards_to_live=0))) == 42


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "change, named",
    [
        ({"documents": make_corpus(41)}, "count"),
        ({"documents": make_corpus().set_column(1, "title", [["x"] * 42])}, "documents_sha256"),
        ({"encoder": HashEncoder("another")}, "encoder"),
        ({"dtype": "float32"}, "dtype"),
        ({"shard_size": 5}, "shard_size"),
    ],
)
def test_another_corpus_or_encoder_is_refused(tmp_path, finished, change, named):
    path = tmp_path / "store"
    if finished:
        encode(path, HashEncoder())
    else:
        with pytest.raises(KeyboardInterrupt):
            encode(path, HashEncoder(shards_to_live=2))
    before = contents(path)
    with pytest.raises(ValueError, match=rf"another store \(.*{named}"):
        encode(path, **{"encoder": HashEncoder(), **change})
    assert contents(path) == before


def test_a_directory_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        encode(tmp_path, HashEncoder())
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_shard_damaged_since_is_refused_when_resuming(tmp_path):
    path = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        encode(path, HashEncoder(shards_to_live=2))
    (path / "embeddings-00001-of-00011.npy").write_bytes(b"")
    encoder = HashEncoder()
    with pytest.raises(OSError, match=r"embeddings-00001-of-00011\.npy"):
        encode(path, encoder)
    assert encoder.encoded == []


def test_vectors_that_are_not_unit_stop_the_run(tmp_path):
    encoder = HashEncoder()
    sound = encoder.encode_documents
    encoder.encode_documents = lambda documents, batch_size: sound(documents) * np.float32(np.nan)
    with pytest.raises(ValueError, match=r"embeddings-00000-of-00011\.npy: .* length nan"):
        encode(tmp_path / "store", encoder)
    assert list(read_json(tmp_path / "store" / "encoding.json")["encoder"]) == list(encoder.identity)


if __name__ == "__main__":
    encode(Path(sys.argv[1]), HashEncoder(seconds=0.15))
