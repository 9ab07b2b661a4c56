"""The same tests on torch, FAISS, Milvus Lite and a real Milvus server; and the faults of a server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from amer.corpus.store import DocumentStore
from amer.search import round_robin
from amer.search.index import ExactIndex
from amer.search.index.milvus.collection import MilvusCollection
from amer.search.index.milvus.connection import MilvusConnection
from amer.search.index.milvus.index import MilvusIndex
from tests.milvus_server import MilvusServer, free_port
from tests.search.index.conftest import CORPUS, CORPUS_DIM, NOTES, clustered, make_corpus
from tests.search.index.engines import Engine, Faiss, Lite, Qdrant, Server, Torch

FILTERS = {
    "numbers": "1950 <= year < 1990",
    "a string with quotes": "language == 'zh \"中\"'",
    "a list": 'language in ["en", "de"] and weight > 0.25',
    "booleans": "stub == True or not (year != 1900)",
    "fewer than are asked for": "year == 1913 and stub == False and weight < 0.5",
    "nothing": "weight > 1",
    "fractions and whole numbers": "weight >= 0 and balance < 3 and balance != 2",
    "negative fractions": "-4.25 < balance <= -0.5",
    "a list of fractions and whole numbers": "balance in [-3, 0.25, 2.0, 4]",
    "not in a list of fractions": "balance not in [-3, 0.25, 1]",
    "numbers beyond every fraction": "-1e300 < balance and balance <= 9223372036854775807 and weight > 5e-324",
    "negative numbers": "serial <= -1 and serial not in [-17, 0]",
    "the largest numbers": "serial == 9223372036854775807 or serial in [-9223372036854775807, 9007199254740993]",
    "between the largest numbers": "-9223372036854775807 <= serial < 9223372036854775807",
    "an empty list": "serial in [] or note in [] or balance not in []",
    "not in": 'language not in ["en"] and not note in ["", "it\'s"]',
    "order of strings": 'note >= "a" and note < "日本語"',
    "nested": "not (year < 1990 and not (stub == True or not (balance > 1 or serial == 0)))",
    **{f"the string {note!a}": f"note == {note!r}" for note in NOTES},
    "a list of strings": f"note in {NOTES[1:7]!r} and note not in {NOTES[4:5]!r}",
}


MILVUS = [pytest.param(name, marks=pytest.mark.server) for name in ("milvus lite", "milvus server")]


@pytest.fixture(scope="module", params=["torch", "faiss", "qdrant", *MILVUS])
def engine(request, tmp_path_factory) -> Engine:
    if request.param == "torch":
        return Torch()
    if request.param == "faiss":
        return Faiss(tmp_path_factory.mktemp("faiss"))
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client")
        return Qdrant(tmp_path_factory.mktemp("qdrant"))
    if request.param == "milvus lite":
        pytest.importorskip("milvus_lite")
        return Lite(str(tmp_path_factory.mktemp("lite") / "index.db"))
    return Server(request.getfixturevalue("milvus_server"))


@pytest.fixture(scope="module")
def index(engine, corpus):
    return engine.build(corpus, "flat")


@pytest.fixture(scope="module")
def graph(engine, corpus):
    if isinstance(engine, Torch):
        pytest.skip("torch searches exactly")
    return engine.build(corpus, "graph", approximate=True)


def questions(count: int = 8, m: int = 5) -> np.ndarray:
    return clustered(count * m, seed=2).reshape(count, m, CORPUS_DIM)


def expected(corpus: DocumentStore, queries: np.ndarray, k: int, allowed: np.ndarray | None = None):
    """Rows and scores by NumPy."""
    similarity = queries @ corpus.vectors(np.arange(CORPUS)).T
    if allowed is not None:
        similarity = np.where(allowed, similarity, -np.inf)
    similarity = np.pad(similarity, ((0, 0), (0, 0), (0, max(0, k - CORPUS))), constant_values=-np.inf)
    rows = np.argsort(-similarity, axis=-1, kind="stable")[..., :k]
    scores = np.take_along_axis(similarity, rows, axis=-1)
    return np.where(np.isneginf(scores), -1, rows), scores


def check(found, wanted) -> None:
    """The same rows and scores, but for rounding."""
    (rows, scores), (wanted_rows, wanted_scores) = found, wanted
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-5)
    with np.errstate(invalid="ignore"):  # of the padding
        tied = np.abs(np.diff(wanted_scores)) < 1e-6  # rounding may put these in another order
    edge = np.zeros_like(tied[..., :1])
    certain = ~(np.concatenate([edge, tied], axis=-1) | np.concatenate([tied, edge], axis=-1))
    np.testing.assert_array_equal(rows[certain], wanted_rows[certain])


@pytest.mark.parametrize("k", [1, 10, 300])
def test_finds_what_is_nearest_in_that_order(index, corpus, k):
    check(index.search(questions(), k), expected(corpus, questions(), k))


@pytest.mark.parametrize("name", FILTERS)
def test_finds_what_is_nearest_of_what_a_filter_allows(engine, index, corpus, name):
    filter = FILTERS[name]
    if name in engine.refuses:
        with pytest.raises(ValueError, match=r"cannot compare .*: drop this comparison, or search with another index"):
            index.search(questions(), 40, filter)
        return
    # Qdrant in a folder reads every payload in Python for each query vector.
    asked = questions(1, 2) if isinstance(engine, Qdrant) else questions()
    check(index.search(asked, 40, filter), expected(corpus, asked, 40, corpus.matching(filter)))


def test_a_graph_finds_nearly_all_that_is_nearest(graph, corpus):
    rows, scores = graph.search(questions(40), 100)
    wanted, _ = expected(corpus, questions(40), 100)
    found = (rows[..., :, None] == wanted[..., None, :]).any(axis=-1)
    assert found.mean() >= 0.95
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
def test_a_graph_lists_as_many_as_a_filter_allows(graph, corpus, filter):
    rows, scores = graph.search(questions(), 40, filter)
    allowed = corpus.matching(filter)
    assert ((rows >= 0).sum(axis=-1) == min(40, allowed.sum())).all()
    assert allowed[rows[rows >= 0]].all()
    assert (np.isneginf(scores) == (rows < 0)).all()


def test_fused_lists_hold_every_document_once(index):
    rows, scores = index.search(questions(), 60)
    fused = round_robin(rows, scores, 60)
    assert (fused.rows >= 0).all()
    assert all(len(set(row)) == 60 for row in fused.rows.tolist())


def test_more_than_there_is_gets_padded(index, corpus):
    check(index.search(questions(2, 2), CORPUS + 3), expected(corpus, questions(2, 2), CORPUS + 3))


def test_many_vectors_are_searched_in_one_call(index, corpus):
    check(index.search(questions(500), 5), expected(corpus, questions(500), 5))


def test_lists_what_exact_search_lists(index, corpus):
    check(index.search(questions(), 30), ExactIndex(corpus).search(questions(), 30))


def test_several_threads_search_at_once(index, corpus):
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: index.search(questions(), 10), range(12)):
            check(found, expected(corpus, questions(), 10))


@pytest.mark.parametrize(
    "queries, k, filter, message",
    [
        (questions()[0], 3, None, rf"\(q, m, {CORPUS_DIM}\)"),
        (questions()[:, :, :-1], 3, None, rf"\(q, m, {CORPUS_DIM}\)"),
        (questions() * np.float32(np.nan), 3, None, "NaN"),
        (questions(), 0, None, "k must be at least 1"),
        (questions(), 3, "colour == 'red'", "no field 'colour'"),
        (questions(), 3, "year == 'red'", "cannot be compared"),
    ],
)
def test_bad_input_is_refused(index, queries, k, filter, message):
    with pytest.raises(ValueError, match=message):
        index.search(queries, k, filter)


def test_an_index_of_another_store_is_refused(engine, index, tmp_path):
    if isinstance(engine, Torch):
        pytest.skip("torch searches the store itself")
    with pytest.raises(ValueError, match="store"):
        engine.open(make_corpus(tmp_path / "store", encoder="another"), "flat")


def test_after_a_restart_the_answers_are_the_same(engine, index, corpus):
    before = index.search(questions(), 30)
    engine.restart()
    check(engine.open(corpus, "flat").search(questions(), 30), before)


@pytest.fixture(params=MILVUS)
def milvus(request, tmp_path) -> str:
    """Where a Milvus is."""
    if request.param == "milvus lite":
        return str(tmp_path / "index.db")
    return request.getfixturevalue("milvus_server").uri


def run_inserting(*arguments: object) -> str:
    script = Path(__file__).with_name("inserting.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_each_row_once(corpus: DocumentStore, uri: str, name: str) -> None:
    check(MilvusIndex.open(corpus, uri, name).search(questions(), 30), expected(corpus, questions(), 30))
    collection = MilvusCollection(MilvusConnection(uri), name)
    assert collection.count(0, CORPUS) == collection.count(-10, 10 * CORPUS) == CORPUS
    np.testing.assert_array_equal(collection.rows(0, CORPUS), np.arange(CORPUS))
    collection.connection.close()


@pytest.mark.kill
def test_ten_kills_of_a_client_leave_every_row_once(corpus, milvus):
    kills = json.loads(run_inserting("killed", corpus.path, milvus, "kills").splitlines()[-1])
    assert len(kills) == 10
    assert all(0 < written <= found < CORPUS for written, found in kills)
    check_each_row_once(corpus, milvus, "kills")


def test_two_clients_fill_one_collection(corpus, milvus_server):
    run_inserting("together", corpus.path, milvus_server.uri, "together")
    check_each_row_once(corpus, milvus_server.uri, "together")


@pytest.mark.kill
def test_a_server_is_killed_amid_an_insertion_and_a_search(corpus, milvus_server: MilvusServer, monkeypatch):
    searched = MilvusIndex.build(corpus, milvus_server.uri, "flat", "FLAT", show_progress_bar=False)
    patience, impatience, over = 120, 3, threading.Event()
    writing = {patience: threading.Event(), impatience: threading.Event()}
    write = MilvusCollection.write

    def told_write(collection: MilvusCollection, entities: list) -> None:
        write(collection, entities)
        writing[collection.connection.timeout].set()
        writing[impatience].wait(60)  # so that the patient is amid its insertion as long as it has to be

    def build(timeout: float) -> MilvusIndex:
        uri = milvus_server.uri
        return MilvusIndex.build(
            corpus, uri, "restarted", "FLAT", batch_rows=15, timeout=timeout, show_progress_bar=False
        )

    def search() -> int:
        times = 0
        while not over.is_set():
            check(searched.search(questions(), 30), expected(corpus, questions(), 30))
            times += 1
        return times

    monkeypatch.setattr(MilvusCollection, "write", told_write)
    with ThreadPoolExecutor(3) as pool:
        patient, searching = pool.submit(build, patience), pool.submit(search)
        try:
            assert writing[patience].wait(60)
            impatient = pool.submit(build, impatience)
            assert writing[impatience].wait(60)
            milvus_server.kill()
            with pytest.raises(OSError, match="inserted rows are kept: build again"):
                impatient.result()
            assert not patient.done()
            milvus_server.start()
            patient.result()
        finally:
            over.set()
        assert searching.result() > 1
    check_each_row_once(corpus, milvus_server.uri, "restarted")


def test_a_refusal_in_words_nobody_foresaw_is_told_at_once(corpus, milvus):
    MilvusIndex.build(corpus, milvus, "flat", "FLAT", show_progress_bar=False).close()
    collection = MilvusCollection(MilvusConnection(milvus, timeout=20), "flat")
    with pytest.raises(ValueError, match="refused to search the collection 'flat'"):
        collection.search(np.ones((1, CORPUS_DIM - 1), dtype=np.float32), 3, {}, "")
    with pytest.raises(ValueError, match="refused to search the collection 'flat'"):
        collection.search(np.ones((1, CORPUS_DIM), dtype=np.float32), 3, {}, "row == 9223372036854775808")
    collection.connection.close()


def test_nobody_listens(corpus):
    pytest.importorskip("pymilvus")
    with pytest.raises(ConnectionError, match="could not connect"):
        MilvusIndex.open(corpus, f"http://127.0.0.1:{free_port()}", "flat", timeout=1)


def test_somebody_listens_and_does_not_answer(corpus):
    pytest.importorskip("pymilvus")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TimeoutError, match="could not connect"):
            MilvusIndex.build(corpus, f"http://127.0.0.1:{silent.getsockname()[1]}", "flat", timeout=1)


def test_an_index_the_server_does_not_know_is_refused(corpus, milvus):
    with pytest.raises(ValueError, match="NOPE"):
        MilvusIndex.build(corpus, milvus, "nope", "NOPE", show_progress_bar=False)


def test_what_is_not_there_is_said(corpus, tmp_path, milvus_server):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        MilvusIndex.open(corpus, str(tmp_path / "index.db"), "flat")
    with pytest.raises(ValueError, match="has no collection 'nobody'"):
        MilvusIndex.open(corpus, milvus_server.uri, "nobody")
    with pytest.raises(ValueError, match="ends in"):
        MilvusIndex.open(corpus, str(tmp_path / "index"), "flat")
