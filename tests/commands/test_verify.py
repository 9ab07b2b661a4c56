"""The command says whether a model reproduces its probe, and its exit code says it too."""

from __future__ import annotations

import torch
from transformers import AutoModel, AutoTokenizer

from tests.commands.running import amer
from tests.conftest import build


def test_a_model_where_it_was_saved_is_reproduced(llama, tmp_path, capsys):
    build(llama).save_pretrained(tmp_path / "model")
    assert amer("verify", tmp_path / "model") == 0
    assert "model: reproduced: largest difference 0," in capsys.readouterr().out


def test_another_base_is_not(llama, tmp_path, capsys):
    build(llama).save_pretrained(tmp_path / "model")
    other = AutoModel.from_pretrained(llama)
    torch.nn.init.normal_(other.layers[0].self_attn.q_proj.weight)
    other.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "base")
    assert amer("verify", tmp_path / "model", "--base-model", tmp_path / "base") == 1
    assert "NOT reproduced" in capsys.readouterr().out
