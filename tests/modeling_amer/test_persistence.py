"""Saved models come back bit-identical in a fresh process, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_amer import AMERModel
from modeling_amer.checksums_amer import seal
from tests.conftest import DIM, LORA, build

QUESTIONS = ["bank", "a longer question"]

FRESH_PROCESS = """
import sys, numpy as np, torch
from transformers import AutoModel
import modeling_amer
model = AutoModel.from_pretrained(sys.argv[1])
vectors = np.load(sys.argv[2]) if model.config.anchored else None
np.save(sys.argv[3], model.encode_query(["bank", "a longer question"], input_vectors=vectors).numpy())
"""


def save_and_encode_in_a_fresh_process(model, folder):
    import numpy as np

    vectors = np.random.default_rng(0).normal(size=(2, DIM)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    model.save_pretrained(folder / "model")
    arguments = [folder / "model", folder / "vectors.npy", folder / "out.npy"]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *map(str, arguments)], check=True)
    here = model.encode_query(QUESTIONS, input_vectors=vectors if model.config.anchored else None)
    return here, torch.from_numpy(np.load(folder / "out.npy"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"lora": LORA},
        {"lora": None},
        {"lora": LORA, "anchored": True},
        {"lora": LORA, "dtype": torch.bfloat16},
        {"lora": None, "dtype": torch.bfloat16},
    ],
    ids=["adapter", "full", "anchored", "adapter-bfloat16", "full-bfloat16"],
)
def test_round_trip_is_bit_identical_in_a_fresh_process(base, options, tmp_path):
    model = build(base, document_encoder={"name": "encoder", "revision": None}, **options)
    torch.nn.init.normal_(model.output_projection.weight, std=0.3)
    here, there = save_and_encode_in_a_fresh_process(model, tmp_path)
    assert torch.equal(here, there)


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
def test_precision_and_attention_can_be_chosen_at_load(llama, lora, tmp_path):
    build(llama, lora=lora).save_pretrained(tmp_path)
    model = AMERModel.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert model.backbone.dtype == torch.bfloat16 and model.input_projection.weight.dtype == torch.float32
    assert model.backbone.config._attn_implementation == "eager"


def test_an_adapter_holds_lora_and_projections_only(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert "backbone.layers.0.self_attn.q_proj.lora_A.default.weight" in keys
    assert all("lora_" in key or key.startswith(("input_projection.", "output_projection.")) for key in keys)
    assert not (tmp_path / "adapter_config.json").exists()


def test_building_on_a_base_leaves_its_weights_as_they_are(base):
    from transformers import AutoModel

    original = AutoModel.from_pretrained(base).state_dict()
    model = build(base)
    ours = {key.replace(".base_layer", ""): value for key, value in model.backbone.state_dict().items()}
    assert all(torch.equal(ours[key], value) for key, value in original.items())


def test_merging_keeps_the_vectors_and_saves_every_weight(base, tmp_path):
    model = build(base)
    before = model.encode_query(QUESTIONS)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged.encode_query(QUESTIONS), before, atol=1e-5, rtol=0)
    merged.save_pretrained(tmp_path)
    assert "backbone.embed_tokens.weight" in load_file(tmp_path / "model.safetensors")
    reloaded = AMERModel.from_pretrained(tmp_path)
    assert torch.equal(reloaded.encode_query(QUESTIONS), merged.encode_query(QUESTIONS))


def test_merging_in_half_precision_is_refused(llama):
    with pytest.raises(ValueError, match="float32"):
        build(llama, dtype=torch.bfloat16).merge_and_unload()


def test_merging_a_model_without_lora_is_refused(llama):
    with pytest.raises(ValueError, match="no LoRA to merge"):
        build(llama).merge_and_unload().merge_and_unload()


def rewrite(folder, change):
    """Change the weights, and the checksum with them."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    checksum = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config["checksums"] = {"model.safetensors": checksum}
    (folder / "config.json").write_text(json.dumps(config))
    seal(folder)


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("output_projection.weight"), "missing .*output_projection.weight"),
        (lambda state: state.update(stranger=torch.zeros(1)), "unexpected .*stranger"),
        (
            lambda state: state.update({"input_projection.weight": torch.zeros(16, DIM + 1)}),
            "of another shape .*input_projection.weight",
        ),
    ],
    ids=["missing", "foreign", "shape"],
)
def test_weights_that_do_not_fit_are_refused(llama, lora, change, message, tmp_path):
    build(llama, lora=lora).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        AMERModel.from_pretrained(tmp_path)


def test_a_missing_base_is_named(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"base model '/nowhere/decoder'.*base_model_name_or_path"):
        AMERModel.from_pretrained(tmp_path, base_model_name_or_path="/nowhere/decoder")
    with pytest.raises(OSError, match="base model"):
        AMERModel.from_base("/nowhere/decoder", document_dim=DIM)


def test_the_base_can_be_overridden_at_load(llama, tmp_path):
    model = build(llama)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["base_model_name_or_path"] = "/nowhere/decoder"
    (tmp_path / "config.json").write_text(json.dumps(config))
    seal(tmp_path)
    reloaded = AMERModel.from_pretrained(tmp_path, base_model_name_or_path=llama)
    assert torch.equal(reloaded.encode_query(QUESTIONS), model.encode_query(QUESTIONS))
