"""Searching from the command line, in a document store of the Hub."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from amer.retrieval import write_store
from tests.conftest import DIM, build
from tests.hub.conftest import loopback_hub

SEARCH = "import sys, search; sys.argv[0] = 'search.py'; search.main()"


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
    arguments = ("--model", tmp_path / "model", "--store", "org/store", "--questions", "bank", "--k", "3")
    shown = hub.run(SEARCH, *arguments, project=True, COLUMNS=120).stdout
    assert all(document in shown for document in ("d0", "d1", "d2"))
