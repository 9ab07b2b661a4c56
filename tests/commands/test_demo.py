"""`amer demo`: a page for what was fitted, fitted first where nothing was."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from queue import Queue

import numpy as np
import pyarrow as pa
import pytest

from amer.commands import demo
from amer.corpus import write_store
from amer.data import RetrievalDataset, save_dataset_dir
from amer.search import Searcher
from tests.commands.running import amer
from tests.conftest import DIM, build

MAKEFILE = Path(__file__).parents[2] / "Makefile"
ENCODER = {"name": "org/encoder"}


@pytest.fixture
def served(monkeypatch) -> list[dict]:
    """What would be served, in place of serving it."""
    asked = []

    def serve(searcher: Searcher, **options) -> None:
        asked.append({"searcher": searcher, **options})
        options["ready"]("http://127.0.0.1:1")

    monkeypatch.setattr("amer.service.serving.serve", serve)
    return asked


def make(settings, llama) -> None:
    """What a finished fit leaves in its folder, in small."""
    documents = pa.table({"id": ["d"], "title": ["t"], "text": ["x"]})
    write_store(settings.store, documents, np.eye(1, DIM, dtype=np.float32), ENCODER, "float32")
    build(llama, document_encoder=ENCODER).save_pretrained(settings.model)
    test = RetrievalDataset(
        query_ids=["a", "b"],
        targets=[[["d"]], [["d"], ["d"]]],
        answers=[[], []],
        queries=["one part", "two parts"],
    )
    save_dataset_dir(settings.dataset, {"test": test}, {"source": "a test", "licence": "CC0-1.0"})


def test_it_fits_what_quickstart_fits_serves_it_and_does_not_fit_again(served, llama, monkeypatch, tmp_path, capsys):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    fitted, opened = [], Queue()

    def fit(settings, console) -> None:
        fitted.append(settings)
        make(settings, llama)

    monkeypatch.setattr("amer.fitting.fit", fit)
    monkeypatch.setattr("webbrowser.open", opened.put)
    folder = tmp_path / "quick"
    amer("demo", "--folder", folder, "--port", 0, "--no-browser")
    assert "The page is at http://127.0.0.1:1" in capsys.readouterr().out and opened.empty()
    amer("demo", "--folder", folder)
    assert len(fitted) == 1 and len(served) == 2 and fitted[0].output == folder
    assert [one["port"] for one in served] == [0, 8000]
    assert served[1]["examples"] == ["two parts", "one part"] and len(served[1]["searcher"].store) == 1
    assert opened.get(timeout=20) == "http://127.0.0.1:1"


def test_it_fits_what_the_makefile_does():
    (line,) = re.findall(r"^QUICKSTART = (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    packages, numbers = re.fullmatch(r"\$\(addprefix --package ,(.*?)\) (.*)", line).groups()
    assert tuple(packages.split()) == demo.PACKAGES
    assert shlex.split(numbers) == ["--num-train", str(demo.NUM_TRAIN), "--train-steps", str(demo.TRAIN_STEPS)]


def test_nothing_is_fitted_for_a_page_that_cannot_be_served(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r'amer demo needs uvicorn: pip install "amer\[serve\]"'):
        amer("demo", "--folder", tmp_path / "quick")
    assert not (tmp_path / "quick").exists()
