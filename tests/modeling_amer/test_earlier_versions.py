"""What earlier versions saved still loads: `saved_with_0_1_0` is what 0.1.0 wrote, under the old names of inputs."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from modeling_amer import AMERConfig, AMERModel, Probe

SAVED = Path(__file__).parent / "saved_with_0_1_0"


def test_the_config_says_what_it_said():
    config = AMERConfig.from_pretrained(SAVED)
    saved = json.loads((SAVED / "config.json").read_text())
    fields = (
        "anchored",
        "document_dim",
        "num_query_vectors",
        "prompt_template",
        "document_encoder",
        "lora",
        "weights",
    )
    assert {name: getattr(config, name) for name in fields} == {name: saved[name] for name in fields}
    assert config.checksums == saved["checksums"] and config.text_config.hidden_size == 16
    assert config.reads_text and config.reads_vectors


def test_the_probe_has_the_vectors_under_their_earlier_name():
    saved = json.loads((SAVED / "probe.json").read_text())
    assert "query_vectors" in saved and "input_vectors" not in saved
    probe = Probe.from_pretrained(SAVED)
    assert probe.input_vectors == saved["query_vectors"] and probe.query_embeddings == saved["query_embeddings"]


def test_the_model_gives_the_vectors_it_gave():
    model = AMERModel.from_pretrained(SAVED, verify=True)
    probe = Probe.from_pretrained(SAVED)
    vectors = model.encode_query(probe.questions, input_vectors=probe.input_vectors)
    torch.testing.assert_close(vectors, torch.tensor(probe.query_embeddings), atol=1e-5, rtol=0)


def test_saved_again_its_probe_has_the_present_name(tmp_path):
    AMERModel.from_pretrained(SAVED).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "probe.json").read_text())
    assert "input_vectors" in saved and "query_vectors" not in saved
    AMERModel.from_pretrained(tmp_path, verify=True)
