"""LoRA alone, as PEFT keeps it: an export, which a saved model does without."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from modeling_amer import AMERModel
from tests.conftest import build


def test_a_save_holds_one_copy_of_the_adapter(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["model.safetensors"]


def test_peft_reads_the_adapter_folder(base, tmp_path):
    """LoRA on the plain decoder, as anybody with PEFT loads it, gives the hidden states of ours."""
    model = build(base)
    model.save_pretrained(tmp_path)
    model.export_peft(tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path, subfolder="adapter")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(theirs(ids).last_hidden_state, model.backbone(ids).last_hidden_state)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base and config["task_type"] == "FEATURE_EXTRACTION"
    # As repositories were published up to 0.1.0: with the export beside the model, which loads all the same.
    assert AMERModel.from_pretrained(tmp_path, verify=True).encode_query("bank").equal(model.encode_query("bank"))


def test_the_adapter_folder_is_in_the_precision_of_the_decoder(llama, tmp_path):
    model = build(llama, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    model.export_peft(tmp_path / "adapter")
    for file, dtype in (("model.safetensors", torch.float32), ("adapter/adapter_model.safetensors", torch.bfloat16)):
        lora = {key: value for key, value in load_file(tmp_path / file).items() if "lora_" in key}
        assert lora and all(value.dtype == dtype for value in lora.values()), file


def test_what_is_exported_is_readable_by_others(llama, tmp_path):
    build(llama).export_peft(tmp_path)
    assert len({path.stat().st_mode for path in tmp_path.glob("adapter_*")}) == 1


def test_an_export_that_would_mislead_is_refused(llama, tmp_path):
    model = build(llama)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a saved model"):
        model.export_peft(tmp_path)
    with pytest.raises(ValueError, match="no LoRA"):
        model.merge_and_unload().export_peft(tmp_path / "adapter")
    assert not (tmp_path / "adapter_config.json").exists() and not (tmp_path / "adapter").exists()
