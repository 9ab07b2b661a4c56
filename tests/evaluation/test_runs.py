"""A run comes back from disk as it was, says so to the tools of TREC, and is refused on another store."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus import DocumentStore, write_store
from amer.evaluation import Run, ranking_metrics, runs
from amer.evaluation.runs import trec_word
from amer.files import read_json
from amer.search import round_robin

ENCODER = {"name": "hand-made"}
IDS = ["bank account", "50%", "money\u00a0box", "a\tb", "plain", "ü"]
FILES = {"run.json", "run.parquet", "run.trec"}
FRESH = """
import sys
import numpy as np
from amer.evaluation import Run
from amer.corpus import DocumentStore
run = Run.load(sys.argv[1], DocumentStore.open(sys.argv[2]))
np.savez(sys.argv[3], rows=run.rows, scores=run.scores, found_by=run.found_by, embeddings=run.query_embeddings,
         query_ids=run.query_ids, name=run.name)
"""


def make_store(folder: Path, ids: list[str] = IDS, name: str = "hand-made") -> DocumentStore:
    documents = pa.table({"id": ids, "title": [""] * len(ids), "text": [f"text of {i}" for i in ids]})
    return write_store(folder, documents, np.eye(len(ids), dtype=np.float32), {"name": name}, dtype="float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DocumentStore:
    return make_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def run() -> Run:
    """Three questions of two vectors; the lists of the second end early, the third finds nothing."""
    rows = np.array([[[0, 1, 2], [3, 4, 5]], [[5, -1, -1], [5, 2, -1]], [[-1] * 3] * 2])
    scores = np.where(rows < 0, -np.inf, np.random.default_rng(0).random(rows.shape)).astype(np.float32)
    embeddings = np.random.default_rng(1).random((3, 2, 6)).astype(np.float32)
    return Run.from_fused("my run", ["q 1", "q2", "q3"], round_robin(rows, scores, 4), embeddings)


def same(one: Run, other: Run) -> bool:
    return (one.name, one.query_ids) == (other.name, other.query_ids) and all(
        (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b))
        for a, b in ((getattr(one, name), getattr(other, name)) for name in ARRAYS)
    )


ARRAYS = ("rows", "scores", "found_by", "query_embeddings")


@pytest.mark.slow
def test_a_run_comes_back_as_it_was_in_another_process(run, store, tmp_path):
    run.save(tmp_path / "run", store)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES | {"query_embeddings.npy"}
    assert same(Run.load(tmp_path / "run", store), run)
    arguments = [str(tmp_path / "run"), str(store.path), str(tmp_path / "read.npz")]
    subprocess.run([sys.executable, "-c", FRESH, *arguments], check=True, cwd=Path(runs.__file__).parents[2])
    read = np.load(tmp_path / "read.npz")
    assert same(Run(str(read["name"]), read["query_ids"].tolist(), *(read[name] for name in read.files[:4])), run)


def test_what_was_not_given_does_not_come_back(run, store, tmp_path):
    bare = Run(run.name, run.query_ids, run.rows, run.scores)
    bare.save(tmp_path / "run", store)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert same(Run.load(tmp_path / "run", store), bare)
    assert pq.read_schema(tmp_path / "run" / "run.parquet").names == ["query_id", "rank", "document_id", "score"]


def test_the_files_say_what_they_hold(run, store, tmp_path):
    run.save(tmp_path / "run", store)
    table = pq.read_table(tmp_path / "run" / "run.parquet").to_pylist()
    first = {"query_id": "q 1", "rank": 1, "document_id": "bank account", "score": float(run.scores[0, 0])}
    assert table[0] == {**first, "found_by": 0} and len(table) == 12
    assert [row["document_id"] for row in table[4:8]] == ["ü", "money\u00a0box", None, None]
    assert [row["rank"] for row in table[4:8]] == [1, 2, 3, 4] and table[6]["found_by"] == -1
    info = read_json(tmp_path / "run" / "run.json")
    assert (info["name"], info["queries"], info["k"], info["documents"]) == ("my run", 3, 4, 6)
    assert info["store"]["documents_sha256"] == store.info["documents_sha256"] and info["store"]["count"] == 6
    assert info["query_embeddings"] == [3, 2, 6]


def test_trec_lines_are_six_words_in_the_order_of_the_scores(run, store, tmp_path):
    run.save(tmp_path / "run", store)
    lines = (tmp_path / "run" / "run.trec").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "q%201 Q0 bank%20account 1 3 my%20run",
        "q%201 Q0 a%09b 2 2 my%20run",
        "q%201 Q0 50%25 3 1 my%20run",
        "q%201 Q0 plain 4 0 my%20run",
        "q2 Q0 ü 1 3 my%20run",
        "q2 Q0 money%C2%A0box 2 2 my%20run",
    ]
    assert [unquote(line.split()[2]) for line in lines[:4]] == ["bank account", "a\tb", "50%", "plain"]
    assert np.any(np.diff(run.scores[0]) > 0)  # the fused scores themselves would give another order


def test_tools_of_trec_read_the_same_ranking(run, store, tmp_path):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run.save(tmp_path / "run", store)
    with (tmp_path / "run" / "run.trec").open(encoding="utf-8") as lines:
        read = pytrec_eval.parse_run(lines)
    judged = {trec_word("q 1"): {trec_word("50%"): 1, trec_word("plain"): 1}, "q2": {trec_word("money\u00a0box"): 1}}
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.4", "recip_rank"}).evaluate(read)
    ours = ranking_metrics(run.rows[:2], [[[1], [4]], [[2]]], [4])
    assert [theirs[query]["ndcg_cut_4"] for query in judged] == pytest.approx(ours["ndcg@4"].tolist())
    assert [theirs[query]["recip_rank"] for query in judged] == pytest.approx([1 / 3, 1 / 2])


@pytest.mark.parametrize("text", [*IDS, "%20", "a\u2003b\nc\x1fd", "100%25"])
def test_any_id_is_one_word_and_comes_back(text):
    assert len(trec_word(text).split()) == 1 and unquote(trec_word(text)) == text


def test_the_empty_id_is_refused(store, tmp_path, monkeypatch):
    # Stores of 0.1.0 may hold it.
    monkeypatch.setitem(store.__dict__, "ids", pa.chunked_array([["", *IDS[1:]]]))
    with pytest.raises(ValueError, match="empty string"):
        Run("run", ["q"], np.array([[0]]), np.zeros((1, 1), np.float32)).save(tmp_path / "run", store)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("ids", "name", "message"),
    [(IDS[::-1], "hand-made", "documents_sha256"), (IDS[:5], "hand-made", "count 6, not 5"), (IDS, "other", "other")],
)
def test_another_store_is_refused(run, store, tmp_path, ids, name, message):
    run.save(tmp_path / "run", store)
    with pytest.raises(ValueError, match=rf"run on another store.*{message}"):
        Run.load(tmp_path / "run", make_store(tmp_path / "other", ids, name))


def test_a_copy_of_the_store_will_do(run, store, tmp_path):
    run.save(tmp_path / "run", store)
    assert same(Run.load(tmp_path / "run", make_store(tmp_path / "copy")), run)


def test_rows_that_the_store_does_not_have_are_refused_and_nothing_is_written(run, store, tmp_path):
    with pytest.raises(ValueError, match=r"holds row 6, .* has 6 documents"):
        replace(run, rows=np.where(run.rows == 0, 6, run.rows)).save(tmp_path / "run", store)
    assert not list(tmp_path.iterdir())


def test_a_saved_run_is_not_overwritten(run, store, tmp_path):
    run.save(tmp_path / "run", store)
    with pytest.raises(FileExistsError):
        run.save(tmp_path / "run", store)


def test_a_save_that_fails_leaves_nothing(run, store, tmp_path, monkeypatch):
    def full(*_) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        run.save(tmp_path / "run", store)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["run.json", "run.parquet", "query_embeddings.npy"])
def test_a_file_that_is_missing_or_cut_short_is_named(run, store, tmp_path, name):
    run.save(tmp_path / "run", store)
    file = tmp_path / "run" / name
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises((OSError, ValueError), match=str(tmp_path / "run")):
        Run.load(tmp_path / "run", store)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Run.load(tmp_path / "run", store)


def test_places_of_another_run_are_refused(run, store, tmp_path):
    run.save(tmp_path / "run", store)
    file = tmp_path / "run" / "run.parquet"
    pq.write_table(pq.read_table(file).slice(0, 8), file)
    with pytest.raises(ValueError, match=r"has 8 places, run\.json says \(3, 4\)"):
        Run.load(tmp_path / "run", store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name"),
        ({"query_ids": ["a", "b", "a"]}, "must be unique"),
        ({"query_ids": ["a", "", "b"]}, "not empty"),
        ({"query_ids": ["a", "b"]}, r"rows must be int64 \(2, 4\), got int64 \(3, 4\)"),
        ({"rows": np.zeros((3, 4), np.int64)}, "holds row 0 twice"),
        ({"rows": np.array([[-1, 1, 2, 3]] * 3)}, "padding"),
        ({"rows": np.tile(np.arange(4, dtype=np.int32), (3, 1))}, "rows must be int64"),
        ({"rows": np.zeros((3, 0), np.int64)}, "is empty"),
        ({"scores": np.zeros((3, 3), np.float32)}, r"scores must be float32 \(3, 4\), got float32 \(3, 3\)"),
        ({"scores": np.zeros((3, 4))}, "scores must be float32"),
        ({"scores": np.full((3, 4), np.nan, np.float32)}, "not numbers"),
        ({"found_by": np.zeros((3, 4))}, "found_by must be int64"),
        ({"query_embeddings": np.zeros((2, 2, 6), np.float16)}, r"query_embeddings must be float16 \(3, any, any\)"),
        ({"query_embeddings": np.zeros((3, 6), np.float16)}, "query_embeddings must be float16"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(run, change, message):
    with pytest.raises(ValueError, match=message):
        replace(run, **change)
