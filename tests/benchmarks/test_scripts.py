"""The benchmark scripts run as users run them, at tiny size, and write what they measured."""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus import write_store
from amer.files import read_json
from tests.conftest import DIM, build_mini, save_tiny_encoder

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RATE = 1e11  # FLOP/s
TINY = ["--length", "12", "--prefix", "6", "--dim", "8", "--num_query_vectors", "3", "--lora_r", "2"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script in this process, on a machine of a known ceiling, and returns the rows it wrote."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(importlib.import_module("workload"), "matmul_rate", lambda device, dtype: RATE)

    def run(name: str, *argv: str) -> list[dict]:
        output = tmp_path / "result.json"
        monkeypatch.setattr(sys, "argv", [name, *argv, "--repeats", "1", "--output", str(output)])
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
        result = read_json(output)
        assert result["machine"]["threads"] >= 1
        assert str(result["arguments"]["output"]) == str(output)
        return result["rows"]

    return run


def test_training_compares_ours_with_a_reference_of_the_same_loss(run, llama):
    variants = ("plain", "recorded", "checkpointing")
    sizes = ("--inputs", "prompted", "--batches", "3", "--variants", *variants)
    rows = run("training", "--model", llama, *TINY, *sizes)
    assert [row["system"] for row in rows] == ["reference", *(f"AMER, {name}" for name in variants)]
    naive, plain, *_ = rows
    for row in rows:
        assert row["loss"] == pytest.approx(naive["loss"], rel=1e-4)
        assert sum(row["phases"].values()) == pytest.approx(1)
        assert row["questions/s"] == pytest.approx(3 / row["seconds"])
        assert row["ratio"] == pytest.approx(naive["seconds"] / row["seconds"])
        assert row["share of ceiling"] == pytest.approx(1e9 * row["GFLOP"] / row["seconds"] / RATE)
    assert {"embedding pass", "LM head", "passes", "matching"} <= naive["phases"].keys()
    assert {"prefill", "decode", "parallel pass", "backward", "matching"} <= plain["phases"].keys()
    assert plain["peak MB"] < naive["peak MB"] / 2
    assert plain["GFLOP"] < naive["GFLOP"] / 3
    assert RATE * plain["floor seconds"] == pytest.approx(1e9 * plain["GFLOP"], rel=0.1)


def test_encoding_compares_ours_with_a_reference_of_the_same_vectors(run, llama):
    sizes = ("--inputs", "distinct", "--questions", "6", "--reference_questions", "4", "--batches", "6")
    naive, ours = run("encoding", "--model", llama, *TINY, *sizes)
    assert [naive["questions"], ours["questions"]] == [4, 6]
    assert ours["largest difference"] < 1e-4
    assert ours["phases"].keys() == {"prefill", "decode", "rest"}
    assert ours["GFLOP"] / 6 < naive["GFLOP"] / 4 / 3
    assert 0.5e9 * ours["GFLOP"] < RATE * ours["floor seconds"] < 1e9 * ours["GFLOP"]  # rows are padded


def test_documents_compares_precisions_with_sentence_transformers(run, tmp_path):
    pytest.importorskip("sentence_transformers")
    texts = [f"text {chr(97 + number)} {'y' * number}" for number in range(20)]
    pq.write_table(pa.table({"id": texts, "title": [""] * 20, "text": texts}), tmp_path / "documents.parquet")
    pq.write_table(
        pa.table({"query": texts[:9], "targets": [[[text]] for text in texts[:9]]}), tmp_path / "split.parquet"
    )
    given = ("--documents", str(tmp_path / "documents.parquet"), "--questions", str(tmp_path / "split.parquet"))
    rows = run("documents", *given, "--encoder", save_tiny_encoder(tmp_path / "encoder"), "--limit", "12", "--k", "1")
    assert [row["system"] for row in rows] == ["sentence-transformers, float32", "AMER, float32", "AMER, bfloat16"]
    assert [row["lowest cosine"] for row in rows[:2]] == pytest.approx([1, 1], abs=1e-5)
    assert 0.99 < rows[2]["lowest cosine"] < 1
    for row in rows:
        assert row["documents"] == 12
        assert row["ratio"] == pytest.approx(rows[0]["CPU seconds"] / row["CPU seconds"])
        assert row["Recall@1"] == 1


def test_matching_compares_three_ways_that_cost_the_same(run):
    rows = run("matching", "--batches", "4", "--vectors", "3")
    assert [row["system"] for row in rows] == ["scipy, row by row", "match", "match_on_device"]
    assert [row["total cost"] for row in rows] == pytest.approx([rows[0]["total cost"]] * 3)


def test_loss_compares_peak_memory_over_candidates(run):
    rows = run("loss", "--candidates", "10000", "40000", "--batch", "8", "--dim", "16")
    naive, ours = rows[:2], rows[2:]
    assert naive[1]["peak's growth"] == pytest.approx(4, rel=0.1)
    assert [row["loss"] for row in naive] == pytest.approx([row["loss"] for row in ours], rel=1e-5)
    assert ours[1]["peak MB"] < naive[1]["peak MB"] / 2


def test_search_compares_systems_that_find_the_same(run):
    pytest.importorskip("faiss")
    rows = run("search", "--rows", "300", "--dim", "8", "--queries", "4", "--vectors", "3", "--k", "7")
    assert [row["system"] for row in rows] == ["matmul, topk", "FAISS flat", "AMER, held", "AMER, from disk"]
    assert [row["recall"] for row in rows] == [1, 1, 1, 1]
    for row in rows:
        assert row["vectors/s"] == pytest.approx(12 / row["seconds"])
        assert row["of the ceiling"] * row["seconds"] == pytest.approx(rows[0]["of the ceiling"] * rows[0]["seconds"])
        assert row["ratio"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
    assert {"products", "selection", "rest"} == rows[-1]["phases"].keys()


def test_search_does_without_faiss_and_says_so(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows = run("search", "--rows", "300", "--dim", "8", "--queries", "4", "--vectors", "3", "--k", "7")
    assert [row["system"] for row in rows] == ["matmul, topk", "AMER, held", "AMER, from disk"]
    assert "FAISS is not installed" in capsys.readouterr().out


def test_index_compares_ours_with_faiss_by_hand(run):
    pytest.importorskip("faiss")
    sizes = ("--rows", "2000", "--dim", "8", "--queries", "4", "--vectors", "3", "--k", "7", "--recall", "0.8")
    rows = run("index", *sizes)
    assert [row["index"] for row in rows] == ["Flat", "IVF8,PQ4x4fs", "HNSW32"]
    for row in rows:
        assert row["recall"] >= 0.8
        assert row["rows like by hand"] > 0.99
        assert 0 < row["fusion's share"] < 1
    assert rows[1]["bytes/vector"] < rows[0]["bytes/vector"] < rows[2]["bytes/vector"]


def test_opening_is_measured_in_a_fresh_process(run):
    rows = run("opening", "--rows", "10", "3000", "--fields", "0", "2")
    assert [(row["documents"], row["fields"]) for row in rows] == [(10, 0), (3000, 0), (10, 2), (3000, 2)]
    assert all(0 <= row["peak MB"] < 100 for row in rows)


def test_fusion_compares_ours_with_a_loop_of_the_same_lists(run):
    rows = run("fusion", "--questions", "20", "--length", "10", "--k", "8", "--overlaps", "0.5", "1")
    assert [(row["overlap"], row["system"]) for row in rows] == [
        (overlap, system) for overlap in (0.5, 1) for system in ("plain loop", "AMER")
    ]
    assert [row["lists like the loop's"] for row in rows[1::2]] == [1, 1]


def test_mmr_compares_ours_with_the_plain_greedy_of_the_same_lists(run):
    sizes = ("--rows", "60", "--dim", "8", "--questions", "3", "--candidates", "20", "--k", "5")
    assert run("mmr", *sizes)[-1]["lists like the greedy's"] == 1


def test_gold_compares_ours_with_the_loop_of_the_same_matches(run):
    rows = run("gold", "--questions", "2", "--passages", "20", "--words", "30")
    assert [row["system"] for row in rows] == ["DPR's loop", "AnswerMatcher", "map_gold"] * 2
    assert [row["pairs like the loop's"] for row in rows] == [1, 1, None] * 2


@pytest.mark.parametrize("argv", [("--prefix", "12"), ("--inputs", "others")])
def test_questions_that_cannot_be_made_are_refused(run, llama, argv):
    with pytest.raises(ValueError, match=r"prefix must lie in 1 \.\.\. 11|distinct or prompted"):
        run("encoding", "--model", llama, *TINY, *argv)


def test_service_is_asked_over_http_beside_the_encoder_alone(run, tmp_path):
    pytest.importorskip("uvicorn")
    pytest.importorskip("aiohttp")
    encoder = {"name": save_tiny_encoder(tmp_path / "encoder")}
    documents = pa.table({name: [f"{name} {row}" for row in range(20)] for name in ("id", "title", "text")})
    store = write_store(tmp_path / "store", documents, np.tile(np.eye(DIM), (3, 1))[:20], encoder)
    build_mini(encoder["name"]).save_pretrained(tmp_path / "model")
    where = ("--model", str(tmp_path / "model"), "--store", str(store.path))
    systems = ("encoder alone", "AMER, asked again")
    options = ("--systems", *systems, "--clients", "2", "--seconds", "0.5", "--vectors", "2", "--k", "5")
    rows = run("service", *where, *options)
    assert [(row["clients"], row["system"]) for row in rows] == [(2, system) for system in systems]
    for row in rows:
        assert row["requests"] > 0 and row["errors"] == 0 and row["p50 ms"] <= row["p99 ms"]
        assert row["CPU ms/request"] > 0 and row["MB at last"] > 10
    assert rows[0]["p50 ratio"] == rows[0]["CPU ratio"] == 1


def test_asking_says_where_the_time_of_one_question_goes(run, tmp_path):
    encoder = {"name": save_tiny_encoder(tmp_path / "encoder")}
    documents = pa.table({name: [f"{name} {row}" for row in range(20)] for name in ("id", "title", "text")})
    store = write_store(tmp_path / "store", documents, np.tile(np.eye(DIM), (3, 1))[:20], encoder)
    build_mini(encoder["name"], stop_score=False).save_pretrained(tmp_path / "model")
    where = ("--model", str(tmp_path / "model"), "--store", str(store.path))
    rows = run("asking", *where, "--rounds", "2", "--batch", "4", "--vectors", "1", "2")
    assert [(row["dtype"], row["m"]) for row in rows] == [(d, m) for d in ("float32", "bfloat16") for m in (1, 2)]
    for row in rows:
        assert 0 < row["query vectors ms"] and 0 < row["4 together ms"] and row["search ms"] < row["all ms"]
        assert row["lowest cosine"] > 0.9 if row["dtype"] == "bfloat16" else row["lowest cosine"] == pytest.approx(1)


def test_growth_measures_every_part_at_every_size_and_draws_it(run, tmp_path):
    pytest.importorskip("faiss")
    pytest.importorskip("httpx")
    encoder = save_tiny_encoder(tmp_path / "encoder")
    sizes = ("--rows", "100", "1000", "--encoded", "100", "--indexed", "100", "--dim", "8")
    rows = run("growth", *sizes, "--preset", "flat", "--encoder", encoder)
    parts = ["encode", "write", "build", "open", "search", "search, exact", "serve"]
    at_every_size = ["write", "open", "search, exact"]
    expected = [*((part, 100) for part in parts), *((part, 1000) for part in at_every_size)]
    assert [(row["part"], row["documents"]) for row in rows] == expected
    assert all(row["CPU seconds"] > 0 and row["peak MB"] >= 0 for row in rows)
    result = read_json(tmp_path / "result.json")
    assert result["slopes"]["CPU seconds"].keys() == set(at_every_size)
    assert (tmp_path / "result.png").stat().st_size > 1000


def test_every_benchmark_of_a_gpu_runs_on_a_cpu_at_tiny_size(llama, tmp_path):
    sizes = {"DEVICE": "cpu", "MODEL": llama, "DIM": "8", "BATCHES": "2 3", "REFERENCE_BATCH": "2", "QUESTIONS": "4"}
    sizes |= {"REFERENCE_QUESTIONS": "2", "CANDIDATES": "100 400", "ROWS": "300", "SEARCHED": "2", "DTYPE": "float32"}
    environment = {
        **os.environ,
        **sizes,
        "OUT": str(tmp_path),
        "PYTHON": sys.executable,
        "REPEATS": "1",
        "SLACK": "10",
    }
    done = subprocess.run(["bash", "scripts/gpu_bench.sh"], cwd=BENCHMARKS.parent, env=environment)
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, log
    parts = {"training", "encoding", "float32", "eager", "matching", "loss", "search", "compiled"}
    assert {file.stem for file in tmp_path.glob("*.json")} == parts
    for skipped in ("faiss", "flash"):
        assert f"== {skipped}: skipped, " in log
