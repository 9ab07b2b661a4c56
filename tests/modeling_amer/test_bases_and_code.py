"""Bases without a tokenizer or under relative paths, and two models whose code differs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from modeling_amer import AMERModel, checksums_amer, loading_amer, persistence_amer
from tests.conftest import DIM, LORA, build

LOADING = """
import sys
from transformers import AutoModel
for folder in sys.argv[1:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    code = sys.modules[type(model).__module__.removesuffix("modeling_amer") + "stopping_amer"]
    print(hasattr(code, "OF_THE_OTHER"))
"""


@pytest.mark.parametrize("damage", ["none", "cut"])
def test_a_base_without_a_readable_tokenizer_is_named(llama, tmp_path, damage):
    base = shutil.copytree(llama, tmp_path / "base")
    file = base / "tokenizer.json"
    text = file.read_text()
    for found in base.glob("*token*"):
        found.unlink()
    if damage == "cut":
        file.write_text(text[:200])
    with pytest.raises(OSError, match=r"base has no tokenizer.* tokenizer\.json"):
        AMERModel.from_base(str(base), DIM)


def test_a_saved_model_whose_tokenizer_is_cut_is_named(llama, tmp_path):
    build(llama).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    file.write_text(file.read_text()[:200])
    checksums_amer.seal(tmp_path / "model")  # cut before it was saved, so its checksum fits
    with pytest.raises(OSError, match=r"model has no tokenizer.* tokenizer\.json"):
        AMERModel.from_pretrained(tmp_path / "model")


def test_a_model_on_a_relative_base_loads_from_everywhere(llama, tmp_path, monkeypatch, caplog):
    base = shutil.copytree(llama, tmp_path / "here" / "base")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    persistence_amer.logger.warning_once.cache_clear()
    with caplog.at_level("WARNING", "modeling_amer.persistence_amer"):
        AMERModel.from_base("base", DIM, lora=LORA).save_pretrained(tmp_path / "model")
    assert f"needs its base in {base}" in caplog.text
    monkeypatch.chdir(tmp_path / "there")
    model = AMERModel.from_pretrained(tmp_path / "model", verify=True)
    assert model.config.base_model_name_or_path == str(base)


@pytest.mark.slow
def test_models_in_folders_of_one_name_run_their_own_code(llama, tmp_path):
    folders = [tmp_path / name / "model" for name in ("one", "other")]
    for folder in folders:
        build(llama).save_pretrained(folder)
    file = folders[1] / "stopping_amer.py"
    file.write_text(file.read_text() + "\nOF_THE_OTHER = True\n")
    command = [sys.executable, "-c", LOADING, *map(str, folders)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    if found.returncode:  # transformers that keeps code by the folder's name
        assert "is not the code that runs here" in found.stderr, found.stderr
    else:
        assert found.stdout.split() == ["False", "True"]


def test_code_that_came_with_another_model_is_refused(llama, tmp_path, monkeypatch):
    build(llama).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(loading_amer, "__name__", "transformers_modules.model.loading_amer")
    AMERModel.from_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "stopping_amer.py"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(OSError, match=r"stopping_amer\.py is not the code that runs here"):
        AMERModel.from_pretrained(tmp_path / "model")
