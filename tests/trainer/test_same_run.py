"""The same run under another spelling of its folders."""

from __future__ import annotations

import os

import pytest

from amer.files import write_json
from amer.trainer.resuming import NOTE, check_same_run


def test_a_folder_may_be_spelled_otherwise_when_a_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "ds" / "dataset").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / NOTE, {"dataset": "ds/dataset", "seed": 1})
    for spelled in ("ds/dataset/", "./ds/dataset", str(tmp_path / "ds" / "dataset"), "other/../ds/dataset"):
        check_same_run(tmp_path, "checkpoint-1", {"dataset": spelled, "seed": 1})
    os.symlink(tmp_path / "ds", tmp_path / "link")
    check_same_run(tmp_path, "checkpoint-1", {"dataset": "link/dataset", "seed": 1})
    for dataset, seed in (("other", 1), ("ds", 1), ("ds/none", 1), ("ds/dataset/", 2)):
        with pytest.raises(ValueError, match="other settings"):
            check_same_run(tmp_path, "checkpoint-1", {"dataset": dataset, "seed": seed})
