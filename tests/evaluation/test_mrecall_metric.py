from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import amer.evaluation
from amer.evaluation import mrecall_at_k, recall_at_k

FOLDER = Path(amer.evaluation.__file__).parent / "metrics" / "mrecall"


@pytest.fixture
def metric(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path / "cache"))


def test_the_figures_are_those_of_the_library(metric):
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 15, size=(40, 12))
    targets = [
        [generator.integers(0, 15, generator.integers(1, 4)).tolist() for _ in range(generator.integers(1, 9))]
        for _ in rows
    ]
    predictions = [[f"d{row}" for row in ranked] for ranked in rows]
    references = [[[f"d{row}" for row in cluster] for cluster in clusters] for clusters in targets]
    for k in (1, 5, 12):
        values = metric.compute(predictions=predictions, references=references, k=k)
        assert values["mrecall"] == pytest.approx(mrecall_at_k(rows, targets, k).mean())
        assert values["recall"] == pytest.approx(recall_at_k(rows, targets, k).mean())


def test_the_example_of_its_readme_holds(metric):
    values = metric.compute(predictions=[["a", "x", "b"]], references=[[["a", "c"], ["b"]]], k=2)
    assert values == {"mrecall": 0.0, "recall": 0.5}
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.1"):
        metric.compute(predictions=[["a"]], references=[[["a"]]], k=2)
    with pytest.raises(ValueError, match="at least one target"):
        metric.compute(predictions=[["a"]], references=[[[]]], k=1)


def test_it_stands_alone():
    lines = (FOLDER / "mrecall.py").read_text().splitlines()
    imports = {line for line in lines if line.startswith(("import ", "from "))}
    assert imports == {"import datasets", "import evaluate", "import numpy as np"}
