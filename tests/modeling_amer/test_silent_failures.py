"""What transformers, PEFT and tokenizers get wrong in silence when a model is loaded, saved or decodes.

What needs a Hub is tested in tests/hub/test_model.py, what needs several processes in
tests/trainer/test_distributed.py.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

import modeling_amer
from modeling_amer import AMERModel
from tests.conftest import DIM, LORA, build, save_tiny_base

CODE = sorted(Path(modeling_amer.__file__).parent.glob("*_amer.py"))


def test_gradient_checkpointing_in_training_does_not_lose_the_cache(base):
    model = build(base).train()
    batch = model.tokenize(["bank", "a longer question"])
    plain = model(**batch).query_embeddings
    model.gradient_checkpointing_enable()
    assert any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
    torch.testing.assert_close(model(**batch).query_embeddings, plain, atol=1e-5, rtol=0)


def test_untrained_lora_changes_nothing(base):
    model = AMERModel.from_base(base, document_dim=DIM, lora=LORA)
    matrices = {name: value for name, value in model.named_parameters() if "lora_B" in name}
    assert matrices and not any(value.any() for value in matrices.values())
    ids = torch.tensor([[5, 6, 7]])
    original = AutoModel.from_pretrained(base)(ids).last_hidden_state
    assert torch.equal(model.backbone(ids).last_hidden_state, original)


def test_building_a_config_leaves_the_attention_of_the_decoder(base, tmp_path):
    model = build(base)
    assert model.backbone.config._attn_implementation == "sdpa" and model.config.text_config is model.backbone.config
    model.save_pretrained(tmp_path)
    assert AMERModel.from_pretrained(tmp_path).backbone.config._attn_implementation == "sdpa"


def test_short_questions_beside_long_ones_keep_their_vectors(base):
    model = build(base)
    model.tokenizer.padding_side = "right"
    alone, together = model.encode_query(["bank"]), model.encode_query(["bank", "a much longer question than that"])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)


def test_the_model_s_code_imports_only_itself_and_what_every_user_has():
    """Flat files with `from .x import y`; what else they import is installed wherever the model can be used."""
    names = {file.stem for file in CODE}
    installed = {"torch", "numpy", "transformers", "peft", "safetensors", "huggingface_hub"}
    allowed = installed | sys.stdlib_module_names
    for file in CODE:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        optional = {id(node) for part in ast.walk(tree) if isinstance(part, ast.Try) for node in ast.walk(part)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module in names, f"{file.name}:{node.lineno}"
            elif isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in optional:
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert {module.partition(".")[0] for module in modules} <= allowed, f"{file.name}:{node.lineno}"


def test_the_model_s_file_names_every_other():
    """Of a local folder, transformers below 5.10 copies only what the model's own file imports."""
    text = (CODE[0].parent / "modeling_amer.py").read_text(encoding="utf-8")
    assert all(f"from .{file.stem} import" in text for file in CODE if file.stem != "modeling_amer")


def test_every_file_of_code_is_saved(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    assert {file.name for file in CODE} == {file.name for file in tmp_path.glob("*.py")}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_amer.AMERConfig",
        "AutoModel": "modeling_amer.AMERModel",
    }


def test_no_path_of_this_machine_but_the_base_s_is_saved(llama, tmp_path):
    build(llama, lora=None).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("base_model_name_or_path") == llama and llama not in json.dumps(config)


def test_saved_files_are_readable_and_carry_no_state_of_padding(llama, tmp_path):
    model = build(llama)
    model.encode_query(["bank", "a longer question"])
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["padding"] is None
    modes = {path.name: path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert {modes["config.json"]} == set(modes.values())


def test_how_the_base_was_quantized_is_not_saved(llama, tmp_path):
    model = build(llama)
    model.backbone.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    assert AMERModel.from_pretrained(tmp_path).encode_query("bank").equal(model.encode_query("bank"))


def test_forward_takes_what_other_libraries_pass(llama):
    model = build(llama)
    batch = model.tokenize(["bank"])
    assert model(**batch, return_dict=True, task="query").query_embeddings.shape == (1, 3, DIM)
    assert isinstance(model(**batch, return_dict=False), tuple)


@pytest.mark.parametrize("options", [{"bias": "all"}, {"modules_to_save": ["norm"]}], ids=str)
def test_lora_that_trains_more_than_an_adapter_saves_is_refused(options, tmp_path):
    base = save_tiny_base(tmp_path, "qwen2")  # has biases
    with pytest.raises(ValueError, match="LoRA matrices only"):
        AMERModel.from_base(base, document_dim=DIM, lora={**LORA, **options})


@pytest.mark.parametrize("start", ["pissa", "olora", "eva"])
def test_lora_that_changes_the_base_at_its_start_is_refused(llama, start):
    with pytest.raises(ValueError, match="changes the base's weights"):
        AMERModel.from_base(llama, document_dim=DIM, lora={**LORA, "init_lora_weights": start})


def test_what_from_pretrained_would_not_heed_is_refused(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    for options in ({"state_dict": {}}, {"use_safetensors": False}):
        with pytest.raises(ValueError, match="safetensors"):
            AMERModel.from_pretrained(tmp_path, **options)
    with pytest.raises(ValueError, match="must be an AMERConfig"):
        AMERModel.from_pretrained(tmp_path, config=AutoConfig.from_pretrained(llama))
    with pytest.raises(ValueError, match="its own code"):
        AMERModel.from_base(llama, document_dim=DIM, trust_remote_code=True)


def test_a_base_with_code_of_its_own_is_refused_without_a_question(llama, tmp_path, monkeypatch):
    shutil.copytree(llama, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    own = {"model_type": "their-own", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, **own}))
    (tmp_path / "base" / "code.py").write_text("raise SystemExit('code of the base was run')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(OSError, match="could not be loaded"):
        AMERModel.from_base(str(tmp_path / "base"), document_dim=DIM)


def test_a_save_of_other_weights_leaves_no_probe_of_the_earlier_ones(llama, tmp_path):
    model = build(llama)
    model.save_pretrained(tmp_path)
    gathered = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=gathered)
    assert not (tmp_path / "probe.json").exists()
    with pytest.raises(ValueError, match="not state_dict"):
        model.save_pretrained(tmp_path, state_dict=gathered, push_to_hub=True)


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
def test_saving_what_was_loaded_gives_the_same_bytes(llama, lora, tmp_path):
    build(llama, lora=lora).save_pretrained(tmp_path / "a")
    AMERModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
@pytest.mark.parametrize("harm", ["tampered", "truncated", "missing"])
def test_damaged_weights_are_refused_with_their_name(llama, lora, harm, tmp_path):
    build(llama, lora=lora).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    if harm == "tampered":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "truncated":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AMERModel.from_pretrained(tmp_path)


def test_a_truncated_file_is_named_where_no_checksum_was_saved(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["checksums"], config["sealed"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(OSError, match=r"model\.safetensors is truncated"):
        AMERModel.from_pretrained(tmp_path)


def test_an_adapter_takes_the_place_of_a_full_model_of_many_files(llama, tmp_path):
    build(llama, lora=None).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    AMERModel.from_pretrained(tmp_path, verify=True)
    (tmp_path / "notes.txt").write_text("the user's")
    build(llama).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*.safetensors*")] == ["model.safetensors"]
    assert (tmp_path / "notes.txt").read_text() == "the user's"
    build(llama).export_peft(tmp_path / "adapter")
    build(llama).merge_and_unload().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter/*"))


def test_a_decoder_that_needs_its_own_code_is_refused(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["model_type"] = "their-own"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not know the decoder 'their-own'"):
        AMERModel.from_pretrained(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize("config", [None, {"model_type": "llama"}], ids=["missing", "another"])
def test_a_folder_without_an_amer_config_is_refused(llama, config, tmp_path):
    build(llama, lora=None).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match="holds no AMER model"):
        AMERModel.from_pretrained(tmp_path)


def test_the_tokenizer_comes_along(llama, tmp_path):
    model = build(llama)
    model.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert again("bank")["input_ids"] == model.tokenizer("bank")["input_ids"]
