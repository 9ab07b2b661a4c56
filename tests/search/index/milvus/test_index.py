"""What of Milvus needs no server: an index in a file, by Milvus Lite."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus.store import DocumentStore, write_store
from amer.search.index.exact import ExactIndex
from amer.search.index.milvus.collection import longest_strings
from amer.search.index.milvus.index import MilvusIndex
from amer.search.index.milvus.loading import broken, missing, rows_of_a_batch
from amer.search.index.milvus.parameters import default_index_params, default_search_params
from tests.search.index.conftest import CORPUS, CORPUS_DIM, clustered, make_corpus

pytestmark = pytest.mark.server

grpc = pytest.importorskip("grpc")
pytest.importorskip("milvus_lite")
MilvusException = pytest.importorskip("pymilvus.exceptions").MilvusException

TRACE = """stack trace: /milvus/pkg/tracer/stack_trace.go:51 github.com/milvus-io/milvus/pkg/tracer.StackTrace
/milvus/internal/util/grpcclient/client.go:550 github.com/milvus-io/milvus/internal/util/grpcclient.(*Base[...]).Call
/milvus/pkg/util/timeout.go:44 github.com/milvus-io/milvus/pkg/util/timeout.Do
/usr/local/go/src/runtime/asm_amd64.s:1571 runtime.goexit
/milvus/internal/datacoord/services.go:116 github.com/milvus-io/milvus/internal/datacoord.(*Server).Flush: """
# Seen when a server was killed and started again amid a flush; the trace had nine lines.
NODE_RESTARTED = f"""attempt #0: {TRACE}attempt #0: rpc error: code = Unknown desc = node not match[expectedNodeID=2]\
[actualNodeID=3]: attempt #1: rpc error: code = Canceled desc = grpc: the client connection is closing: attempt #2: \
session not found->datanode-2: node not found[node=2]: unrecoverable error"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "new" / "index.db")


@pytest.fixture(scope="module")
def index(corpus, uri) -> MilvusIndex:
    return MilvusIndex.build(corpus, uri, "flat", "FLAT", show_progress_bar=False)


def make_queries(count: int = 4) -> np.ndarray:
    return clustered(count * 3, seed=3).reshape(count, 3, CORPUS_DIM)


def small_store(path, **metadata) -> DocumentStore:
    documents = pa.table({**{name: ["0", "1"] for name in ("id", "title", "text")}, **metadata})
    return write_store(path, documents, np.eye(2, 64), {"name": "toy"})


def test_what_is_missing_or_damaged_is_found_and_written_again(corpus, uri, index):
    collection, name = index._collection, index._collection.name
    collection.connection.call("delete", lambda client, s: client.delete(name, filter="row >= 700 and row < 1410"))
    assert list(missing(collection, 0, CORPUS, 100)) == [(row, row + 100) for row in range(700, 1500, 100)]
    assert broken(collection, CORPUS) == [(0, CORPUS)]
    with pytest.raises(ValueError, match=r"has not finished: run MilvusIndex\.build again"):
        MilvusIndex.open(corpus, uri, "flat")
    MilvusIndex.build(corpus, uri, "flat", "FLAT", batch_rows=300, show_progress_bar=False)
    assert broken(collection, CORPUS) == []
    rows, _ = MilvusIndex.open(corpus, uri, "flat").search(make_queries(), 20)
    np.testing.assert_array_equal(rows, ExactIndex(corpus).search(make_queries(), 20)[0])


def test_an_index_that_stands_is_opened_and_not_written_again(corpus, uri, index, monkeypatch):
    monkeypatch.setattr("amer.search.index.milvus.index.fill", None)
    MilvusIndex.build(corpus, uri, "flat", "FLAT", show_progress_bar=False)


def test_another_index_or_store_under_the_same_name_is_refused(corpus, uri, index, tmp_path):
    with pytest.raises(ValueError, match=r"another index \(FLAT, M None.*build under another name"):
        MilvusIndex.build(corpus, uri, "flat", "HNSW", {"M": 8}, show_progress_bar=False)
    another = make_corpus(tmp_path / "store", encoder="another")
    with pytest.raises(ValueError, match="built with the encoder toy"):
        MilvusIndex.build(another, uri, "flat", "FLAT", show_progress_bar=False)


def test_an_index_is_built_and_searched_with_given_parameters(corpus, uri):
    MilvusIndex.build(corpus, uri, "lists", "IVF_FLAT", {"nlist": 50}, show_progress_bar=False)
    index = MilvusIndex.open(corpus, uri, "lists", search_params={"nprobe": 50})
    assert (index.index_type, index.index_params["nlist"]) == ("IVF_FLAT", 50)
    rows, _ = index.search(make_queries(), 30)
    np.testing.assert_array_equal(rows, ExactIndex(corpus).search(make_queries(), 30)[0])


def test_lists_an_index_leaves_short_are_searched_exactly(corpus, uri):
    MilvusIndex.build(corpus, uri, "short", "IVF_FLAT", {"nlist": 50}, show_progress_bar=False)
    index = MilvusIndex.open(corpus, uri, "short", search_params={"nprobe": 1})
    for filter in (None, "year < 1950"):
        rows, scores = index.search(make_queries(), 1_000, filter)
        wanted_rows, wanted_scores = ExactIndex(corpus).search(make_queries(), 1_000, filter)
        np.testing.assert_array_equal(rows, wanted_rows)
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-5)


def test_a_graph_is_built_where_nothing_is_said(tmp_path):
    store = small_store(tmp_path / "store")
    index = MilvusIndex.build(store, str(tmp_path / "index.db"), "small", show_progress_bar=False)
    assert (index.index_type, index.index_params["M"]) == ("HNSW", 32)


@pytest.mark.parametrize(
    "failure",
    [
        MilvusException(2, "Fail connecting to server"),
        MilvusException(grpc.StatusCode.UNAVAILABLE, "[search] Retry timeout: 4s"),
        MilvusException(1, "service not ready[standalone=1][stage=Initializing]"),
        MilvusException(101, "failed to search: collection not loaded[collection=1]"),
        MilvusException(1, "Unexpected error, message=<Cannot invoke RPC on closed channel!>"),
        MilvusException(65535, NODE_RESTARTED),
        MilvusException(65535, f"{'attempt failed: ' * 100}rpc error: code = Unavailable desc = error reading"),
        MilvusException(65535, "failed to search: worker(1): segment lacks[segment=5]"),
    ],
    ids=lambda failure: str(failure)[:60],
)
def test_what_passes_is_waited_for(index, failure):
    answers = iter([failure, failure, "an answer"])

    def request(client, seconds):
        answer = next(answers)
        if answer is failure:
            raise failure
        return answer

    assert index._collection.connection.call("ask", request) == "an answer"


@pytest.mark.parametrize(
    "failure",
    [
        MilvusException(65535, "failed to create query plan: cannot cast value to Int64"),
        MilvusException(grpc.StatusCode.UNIMPLEMENTED, "unknown method"),
        MilvusException(1100, "the length of 0th string exceeds max length"),
        MilvusException(1, "words nobody foresaw"),
        MilvusException(1, "the alias of the collection timeout_docs already exists"),
        MilvusException(65535, "rpc error: code = Unknown desc = words nobody foresaw"),
    ],
    ids=str,
)
def test_what_does_not_pass_is_told_at_once_in_the_words_of_the_server(index, failure):
    answers = iter([failure])

    def request(client, seconds):
        raise next(answers)

    with pytest.raises(ValueError, match=f"refused to ask: {failure.message}"):
        index._collection.connection.call("ask", request)


def test_a_refusal_is_told_without_the_stack_trace_of_the_server(index):
    def request(client, seconds):
        raise MilvusException(65535, f"attempt #0: {TRACE}invalid filter")

    with pytest.raises(ValueError, match=r"refused to ask: attempt #0: invalid filter$"):
        index._collection.connection.call("ask", request)


def test_more_than_milvus_lists_is_refused(index):
    with pytest.raises(ValueError, match="k must be at most 16384 in Milvus, got 16385"):
        index.search(make_queries(), 16_385)


def test_types_that_milvus_lite_would_search_by_brute_force_are_refused(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"builds FLAT, HNSW, .*, got 'DISKANN': use a server"):
        MilvusIndex.build(corpus, str(tmp_path / "index.db"), "disk", "DISKANN")
    assert not (tmp_path / "index.db").exists()


def test_a_file_that_another_process_uses_is_refused(corpus, tmp_path):
    path = str(tmp_path / "index.db")
    hold = f"from milvus_lite.db import MilvusLite; held = MilvusLite({path!r}); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(OSError, match="another process has it open"):
            MilvusIndex.open(corpus, path, "flat")
        holder.communicate(b"\n")


def test_a_missing_pymilvus_is_named(corpus, uri, index, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"amer\[milvus\]"):
        MilvusIndex.open(corpus, uri, "flat")


def test_a_string_too_long_for_milvus_is_refused(tmp_path):
    assert longest_strings(small_store(tmp_path / "short", a=["", "é"], b=["", ""], c=[1, 2])) == {"a": 2, "b": 1}
    with pytest.raises(ValueError, match=r"'a' has a string of 65536 bytes.*shorten it"):
        longest_strings(small_store(tmp_path / "long", a=["", "é" * 32_768]))


def test_a_batch_fits_a_message_whatever_it_holds(tmp_path):
    store = small_store(tmp_path / "store")
    assert rows_of_a_batch(store, {}, 100) == 100
    assert rows_of_a_batch(store, {}, 10**6) == 5_000
    assert rows_of_a_batch(store, {"text": 65_535}, 5_000) == 2**24 // (4 * 64 + 16 + 65_535)
    with pytest.raises(ValueError, match="batch_rows must be at least 1, got 0"):
        rows_of_a_batch(store, {}, 0)


def test_parameters_grow_with_the_corpus_and_k():
    assert default_index_params("IVF_SQ8", 1_000_000) == {"nlist": 4_000}
    assert default_search_params("IVF_SQ8", {"nlist": "4000"}, 10) == {"nprobe": 1_000}
    assert default_search_params("HNSW", {}, 1_000) == {"ef": 2_000}
    assert default_search_params("FLAT", {}, 1_000) == {}
