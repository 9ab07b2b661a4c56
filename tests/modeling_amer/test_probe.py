"""The probe says whether a loaded model gives the vectors it gave where it was saved."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from modeling_amer import AMERModel, Probe
from tests.conftest import DIM, build


@pytest.mark.parametrize(
    "options", [{}, {"anchored": True}, {"reads_text": False}, {"lora": None}], ids=["text", "both", "vectors", "full"]
)
def test_a_saved_model_reproduces_its_probe(llama, options, tmp_path):
    build(llama, **options).save_pretrained(tmp_path)
    report = Probe.from_pretrained(tmp_path).compare(AMERModel.from_pretrained(tmp_path, verify=True))
    assert report.reproduced and report.max_difference == 0 and report.saved_with == report.here
    assert "same versions" in str(report)


def other_base(base, folder) -> str:
    """A base whose shapes are the same and whose weights are not quite."""
    model = AutoModel.from_pretrained(base)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(1.5)
    model.save_pretrained(folder)
    return str(folder)


def test_another_base_loads_in_silence_and_only_the_probe_tells(llama, tmp_path):
    build(llama).save_pretrained(tmp_path / "model")
    other = other_base(llama, tmp_path / "other")
    AMERModel.from_pretrained(tmp_path / "model", base_model_name_or_path=other)
    with pytest.raises(ValueError, match=r"NOT reproduced: largest difference [\d.]+, smallest cosine"):
        AMERModel.from_pretrained(tmp_path / "model", base_model_name_or_path=other, verify=True)


def test_another_precision_is_named(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    report = Probe.from_pretrained(tmp_path).compare(AMERModel.from_pretrained(tmp_path, dtype=torch.bfloat16))
    assert report.max_difference > 0 and "precision float32 there, bfloat16 here" in str(report)


def test_an_anchored_model_is_measured_by_what_it_adds_to_the_anchor(llama, tmp_path):
    """Other corrections of the same anchors give nearly the same directions, and all the same another model."""
    model = build(llama, anchored=True, dtype=torch.bfloat16)
    torch.nn.init.normal_(model.output_projection.weight, std=0.03)
    model.save_pretrained(tmp_path)
    report = Probe.from_pretrained(tmp_path).compare(build(llama, anchored=True, dtype=torch.bfloat16))
    assert report.min_cosine > 0.95 and not report.reproduced and report.deviation > 0.9


def test_a_model_that_has_diverged_is_not_saved(llama, tmp_path):
    model = build(llama)
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    torch.nn.init.constant_(model.output_projection.weight, float("nan"))
    with pytest.raises(ValueError, match="diverged"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_taking_the_probe_leaves_training_as_it_was(llama, tmp_path):
    model = build(llama).train()
    state = torch.get_rng_state()
    model.save_pretrained(tmp_path)
    assert model.training and model.backbone.training and torch.equal(torch.get_rng_state(), state)


def test_a_missing_or_broken_probe_is_named(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    (tmp_path / "probe.json").write_text(json.dumps({"questions": []}))
    with pytest.raises(ValueError, match=r"probe\.json is not the probe"):
        AMERModel.from_pretrained(tmp_path, verify=True)
    (tmp_path / "probe.json").unlink()
    with pytest.raises(OSError, match=r"probe\.json"):
        AMERModel.from_pretrained(tmp_path, verify=True)


def test_the_probe_of_another_shape_is_refused(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"\(2, 3, {DIM}\), the model gives \(2, 3, {DIM + 1}\)"):
        Probe.from_pretrained(tmp_path).compare(build(llama, document_dim=DIM + 1))


def test_a_lost_lora_matrix_would_not_go_unseen(llama, tmp_path):
    model = build(llama)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    key = next(key for key in state if "lora_B" in key)
    save_file({**state, key: torch.zeros_like(state[key])}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"model\.safetensors is not the file that was saved"):
        AMERModel.from_pretrained(tmp_path)
