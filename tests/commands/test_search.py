"""Searching from the command line, in a document store of the Hub."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus import DocumentStore, write_store
from tests.commands.running import amer
from tests.conftest import DIM, build
from tests.hub.conftest import loopback_hub

SEARCH = "import sys; from amer.commands import main; main(['search', *sys.argv[1:]])"


@pytest.fixture
def hub(tmp_path_factory):
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def test_the_store_may_be_a_name_on_the_hub(hub, llama, tmp_path):
    documents = pa.table({"id": ["d0", "d1", "d2"], "title": ["a", "b", "c"], "text": ["bank", "mouse", "spring"]})
    encoder = {"name": "org/encoder"}
    store = write_store(tmp_path / "store", documents, np.eye(3, DIM), encoder)
    hub.seed("org/store", store.path, repo_type="dataset", private=True)
    build(llama, document_encoder=encoder).save_pretrained(tmp_path / "model")
    arguments = ("--model", tmp_path / "model", "--store", "org/store", "bank", "--k", "3")
    shown = hub.run(SEARCH, *arguments, project=True, COLUMNS=120).stdout
    assert all(document in shown for document in ("d0", "d1", "d2"))


@pytest.fixture
def dated(tmp_path) -> DocumentStore:
    columns = {name: [f"{name} {year}" for year in range(1990, 1990 + DIM)] for name in ("id", "title", "text")}
    documents = pa.table({**columns, "year": range(1990, 1990 + DIM)})
    return write_store(tmp_path / "store", documents, np.eye(DIM), {"name": "org/encoder"})


@pytest.mark.parametrize(
    "engine, where",
    [(["build", "--preset", "flat", "--output"], "index"), (["milvus", "--index-type", "FLAT", "--uri"], "milvus.db")],
    ids=["faiss", "milvus-lite"],
)
def test_an_index_that_was_built_is_searched_with_filter_and_fusion(dated, llama, tmp_path, capsys, engine, where):
    if "milvus" in engine:
        pytest.importorskip("milvus_lite")
    amer("index", *engine, tmp_path / where, "--store", dated.path)
    assert where in capsys.readouterr().out
    build(llama, document_encoder=dated.encoder).save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--store", str(dated.path), "bank", "--k", "9"]
    amer("search", *arguments, "--index", tmp_path / where, "--filter", "year < 1993", "--fusion", "max_score")
    shown = capsys.readouterr().out
    assert [f"id {year}" in shown for year in (1990, 1991, 1992, 1993)] == [True, True, True, False]
