"""Encoding a corpus: a killed run resumes to the bytes of an unbroken one, and never mixes two corpora or encoders.

Run as a program, this file is the run that gets killed, `python test_encoding.py STORE`, or kills workers of its own,
`python test_encoding.py FOLDER kill`.
"""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tqdm import tqdm

from amer import locks as claims
from amer.corpus import encoding, shards
from amer.corpus.encoding import CorpusEncoding, encode_corpus
from amer.corpus.store import DocumentStore
from amer.files import _temporary_beside, read_json
from amer.locks import try_lock

SHARD_SIZE = 4
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


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


@pytest.mark.kill
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, unbroken):
    path = tmp_path / "store"
    process = subprocess.Popen([sys.executable, __file__, str(path)], env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while len(list(path.glob("embeddings-*"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {file.name: file.stat().st_mtime_ns for file in path.glob("embeddings-*")}
    assert 3 <= len(kept) < 11
    with pytest.raises(FileNotFoundError, match="to resume"):
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


def test_a_kill_while_a_directory_was_being_claimed_is_repaired(tmp_path, unbroken):
    path = tmp_path / "store"
    path.mkdir()
    _temporary_beside(path / "encoding.json").write_text("{")
    encode(path, HashEncoder())
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
    with pytest.raises(ValueError, match=rf"other contents \(.*{named}"):
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


def test_workers_share_the_shards_and_the_last_finishes(tmp_path, unbroken):
    path, encoders = tmp_path / "store", [HashEncoder() for _ in range(3)]
    for worker in (2, 0):
        assert encode(path, encoders[worker], worker=worker, num_workers=3) is None
        with pytest.raises(FileNotFoundError, match="to resume"):
            DocumentStore.open(path)
    assert len(encode(path, encoders[1], worker=1, num_workers=3)) == 42
    assert contents(path) == unbroken
    assert [len(encoder.encoded) for encoder in encoders] == [16, 14, 12]
    assert len({text for encoder in encoders for text in encoder.encoded}) == 42


def test_another_number_of_workers_goes_on(tmp_path, unbroken):
    path, encoder = tmp_path / "store", HashEncoder()
    for worker, num_workers in ((1, 2), (4, 5), (2, 5)):
        assert encode(path, encoder, worker=worker, num_workers=num_workers) is None
    assert len(encode(path, encoder, worker=0, num_workers=1)) == 42
    assert contents(path) == unbroken
    assert len(encoder.encoded) == len(set(encoder.encoded)) == 42


@pytest.mark.parametrize("worker, num_workers", [(-1, 2), (2, 2), (0, 0)])
def test_a_worker_that_is_none_of_them_is_refused(tmp_path, worker, num_workers):
    with pytest.raises(ValueError, match=f"num_workers={num_workers}.*got {worker}"):
        encode(tmp_path / "store", HashEncoder(), worker=worker, num_workers=num_workers)


def test_a_shard_of_another_worker_damaged_since_is_never_taken_into_a_store(tmp_path):
    path = tmp_path / "store"
    encode(path, HashEncoder(), worker=0, num_workers=2)
    (path / "embeddings-00004-of-00011.npy").write_bytes(b"")
    with pytest.raises(OSError, match=r"embeddings-00004-of-00011\.npy"):
        encode(path, HashEncoder(), worker=1, num_workers=2)
    assert not (path / "store.json").exists()


def test_temporary_files_stay_while_another_worker_is_at_work(tmp_path, unbroken):
    path, encoder = tmp_path / "store", HashEncoder()
    sound, being_written = encoder.encode_documents, _temporary_beside(path / "embeddings-00000-of-00011.npy")

    def joined_by_another(*arguments, **options):
        being_written.touch()
        assert encode(path, HashEncoder(), worker=1, num_workers=2) is None
        assert being_written.exists()
        return sound(*arguments, **options)

    encoder.encode_documents = joined_by_another
    encode(path, encoder, worker=0, num_workers=2)
    assert being_written.exists()
    encode(path, HashEncoder(shards_to_live=0))  # alone, and so with nobody who could be writing
    assert contents(path) == unbroken


def test_the_same_call_made_twice_at_a_time_shares_the_work_and_does_none_twice(tmp_path, unbroken):
    path, first, second = tmp_path / "store", HashEncoder(), HashEncoder()
    sound = first.encode_documents

    def joined_by_the_same_call(*arguments, **options):
        first.encode_documents = sound
        assert encode(path, second) is None  # all but the shard in the other's hands
        assert len(list(path.glob("embeddings-*"))) == 10
        return sound(*arguments, **options)

    first.encode_documents = joined_by_the_same_call
    assert len(encode(path, first)) == 42
    assert contents(path) == unbroken
    assert sorted(first.encoded + second.encoded) == sorted(make_corpus()["text"].to_pylist())


def test_who_finds_another_finishing_leaves_it_to_that_one(tmp_path, unbroken):
    path, encoder = tmp_path / "store", HashEncoder()
    prepared = CorpusEncoding.prepare(make_corpus(), encoder, path, 4, SHARD_SIZE, "float16")
    with prepared.share_directory():
        prepared.encode(range(11))
        with try_lock(path / "store.json"):
            assert encode(path, HashEncoder(shards_to_live=0)) is None
    assert len(encode(path, HashEncoder(shards_to_live=0))) == 42
    assert contents(path) == unbroken


def test_a_shard_is_held_by_one_and_free_again_however_that_one_ends(tmp_path):
    file = tmp_path / "shard.npy"
    with try_lock(file) as first, try_lock(file) as second:
        assert (first, second) == (True, False)
    with pytest.raises(KeyboardInterrupt), try_lock(file):
        raise KeyboardInterrupt
    with try_lock(file) as again:
        assert again
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_was_removed_while_it_was_opened_gives_no_right(tmp_path, monkeypatch):
    file, really = tmp_path / "shard.npy", os.open

    def slow_open(*arguments):
        descriptor = really(*arguments)
        (tmp_path / ".shard.npy.lock").unlink()  # what its holder does in the end, between opening and locking here
        return descriptor

    monkeypatch.setattr(claims.os, "open", slow_open)
    with try_lock(file) as free:
        assert not free


def test_a_file_system_without_locks_is_gone_on_with(tmp_path, unbroken, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claims.fcntl, "flock", no_locks)
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path / "store", HashEncoder(shards_to_live=2))
    assert contents(encode(tmp_path / "store", HashEncoder()).path) == unbroken


def test_only_the_first_looks_for_repeated_ids(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(encoding, "check_ids", lambda ids, where: looked.append(len(ids)))
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path / "store", HashEncoder(shards_to_live=2))
    encode(tmp_path / "store", HashEncoder(), worker=0, num_workers=2)
    encode(tmp_path / "store", HashEncoder())
    assert looked == [42]


def test_repeated_ids_are_refused_before_anything_is_written(tmp_path):
    twice = make_corpus().set_column(0, "id", [["same"] * 42])
    with pytest.raises(ValueError, match="ids repeat, among them 'same'"):
        encode(tmp_path / "store", HashEncoder(), twice)
    assert list((tmp_path / "store").iterdir()) == []


def test_one_preparation_serves_any_shards_in_any_order(tmp_path, unbroken):
    encoder = HashEncoder()
    prepared = CorpusEncoding.prepare(make_corpus(), encoder, tmp_path / "store", 4, SHARD_SIZE, "float16")
    for shard in (10, 3, 3):
        with prepared.share_directory():
            prepared.encode([shard])
    assert prepared.shards.missing() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert encoder.encoded == [f"text {row}" for row in (40, 41, 12, 13, 14, 15)]
    assert contents(encode(tmp_path / "store", encoder).path) == unbroken


@pytest.mark.parametrize("in_use", [False, True])
def test_the_rate_is_of_what_this_run_encodes(tmp_path, monkeypatch, in_use):
    bars, path, encoder = [], tmp_path / "store", HashEncoder()
    monkeypatch.setattr(shards, "tqdm", lambda **options: bars.append(tqdm(**options)) or bars[-1])
    prepared = CorpusEncoding.prepare(make_corpus(), HashEncoder(), path, 4, SHARD_SIZE, "float16")
    with prepared.share_directory():
        prepared.encode(range(3))
        with try_lock(path / "embeddings-00004-of-00011.npy") if in_use else nullcontext():
            encode(path, encoder, show_progress_bar=True)
    bar = bars[1]
    assert bar.initial == 12
    assert bar.n == bar.total == 12 + len(encoder.encoded) == 42 - 4 * in_use
    assert (bar.smoothing, bar.unit) == (0, "document")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of eight pages."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_named_and_encoding_goes_on_when_there_is_space(small_disk, unbroken):
    path = small_disk / "store"
    with pytest.raises(OSError, match=r"embeddings-000\d\d-of-00011\.npy.* disk full"):
        encode(path, HashEncoder())
    kept = sorted(file.name for file in path.glob("embeddings-*"))
    assert 3 < len(kept) < 11
    assert sorted(path.iterdir()) == sorted([path / "encoding.json", *path.glob("embeddings-*")])
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    encoder = HashEncoder(shards_to_live=11 - len(kept))
    assert contents(encode(path, encoder).path) == unbroken


def test_a_write_that_fails_halfway_leaves_nothing(tmp_path, unbroken):
    path, (_, hard) = tmp_path / "store", resource.getrlimit(resource.RLIMIT_FSIZE)
    prepared = CorpusEncoding.prepare(make_corpus(), HashEncoder(), path, 4, SHARD_SIZE, "float16")
    with prepared.share_directory():
        prepared.encode([0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))  # of the 192 bytes of a shard
        try:
            with pytest.raises(OSError, match=r"embeddings-00001-of-00011\.npy could not be written"):
                prepared.encode([1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert sorted(file.name for file in path.iterdir()) == ["embeddings-00000-of-00011.npy", "encoding.json"]
    assert contents(encode(path, HashEncoder()).path) == unbroken


@pytest.mark.kill
def test_workers_killed_at_random_do_the_others_no_harm(tmp_path, unbroken):
    """Every worker ends well or killed; none because another took its temporary file for that of a dead one."""
    subprocess.run([sys.executable, __file__, str(tmp_path), "kill"], env=ENVIRONMENT, check=True, timeout=120)
    for store in tmp_path.iterdir():
        assert contents(store) == unbroken


def kill_workers(path: Path, chance: random.Random) -> int:
    """Some workers at a time, of which some are killed, until all of the store is there; returns how many were."""
    context, killed = multiprocessing.get_context("fork"), 0
    while not (path / "store.json").is_file() or any(path.glob(".*")):
        count = chance.randint(1, 4)
        same = chance.random() < 0.5  # the same call several times, or each with a share of its own
        shares = [{} if same else {"worker": worker, "num_workers": count} for worker in range(count)]
        workers = [context.Process(target=encode, args=(path, HashEncoder("hash", 0.005)), kwargs=s) for s in shares]
        for worker in workers:
            worker.start()
            time.sleep(chance.uniform(0, 0.005))
        for worker in chance.sample(workers, chance.randint(0, count)):
            time.sleep(chance.uniform(0, 0.005))
            worker.kill()
        for worker in workers:
            worker.join()
        codes = [worker.exitcode for worker in workers]
        assert {*codes} <= {0, -signal.SIGKILL}, codes
        killed += codes.count(-signal.SIGKILL)
    return killed


def kill_twenty(folder: Path) -> None:
    """Store after store, until twenty workers have been killed."""
    chance, killed, stores = random.Random(0), 0, 0
    while killed < 20:
        killed += kill_workers(folder / str(stores), chance)
        stores += 1


if __name__ == "__main__":
    if sys.argv[2:] == ["kill"]:
        kill_twenty(Path(sys.argv[1]))
    else:
        encode(Path(sys.argv[1]), HashEncoder(seconds=0.15))
