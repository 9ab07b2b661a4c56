"""A file of a model that cannot be read is named, and so is the model."""

from __future__ import annotations

import json
import os

import huggingface_hub
import pytest
import torch

from modeling_amer import AMERModel, Probe, checksums_amer
from tests.conftest import build


def change(folder, **fields) -> None:
    """Change fields of config.json and seal it anew."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    checksums_amer.seal(folder)


@pytest.mark.parametrize("name", ["nope", "org/nope", "./nope"])
def test_a_model_that_is_not_there_is_named(monkeypatch, tmp_path, name):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=f"AMER model '{name}' could not be opened"):
        AMERModel.from_pretrained(name)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "1.0", "model": 3}'])
def test_a_tokenizer_that_is_cut_short_is_named(llama, tmp_path, content, sealed):
    build(llama).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(content)
    if not sealed:
        checksums_amer.seal(tmp_path)
    with pytest.raises(OSError, match=r"tokenizer\.json"):
        AMERModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"checksums": ["model.safetensors"]},
        {"text_config": 3},
        {"lora": "r=8"},
        {"num_query_vectors": "3"},
        {"document_dim": None},
        {"document_dim": True},
        {"prompt_template": 7},
        {"loss_temperature": "warm"},
        {"document_encoder": "org/encoder"},
        {"document_encoder": {"name": 7}},
    ],
    ids=str,
)
def test_a_configuration_of_wrong_types_is_refused_with_the_field(llama, tmp_path, fields):
    build(llama).save_pretrained(tmp_path)
    change(tmp_path, **fields)
    with pytest.raises((OSError, ValueError), match=rf"config\.json|{next(iter(fields))}"):
        AMERModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"questions": "bank"},
        {"questions": [1, 2]},
        {"query_embeddings": []},
        {"query_embeddings": {"a": 1}},
        {"query_embeddings": [[["x"]]]},
        {"query_embeddings": [[1.0, 2.0]]},
        {"input_vectors": [[]]},
        {"query_embeddings": [[1.0]]},
        {"query_embeddings": "x"},
        {"query_embeddings": [[["a"]], [["b"]]]},
        {"questions": 7},
        {"input_vectors": [[0.0]]},
        {"environment": None},
        {"environment": {"precision": 3}},
        {"environment": []},
        {"environment": {}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_probe_of_wrong_types_is_refused_by_name(llama, tmp_path, fields):
    build(llama).save_pretrained(tmp_path)
    file = tmp_path / "probe.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(ValueError, match=r"probe\.json is not the probe of an AMER model"):
        Probe.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"probe\.json is not the probe of an AMER model"):
        AMERModel.from_pretrained(tmp_path, verify=True)


@pytest.mark.parametrize("content", ["[]", "3", "", "{", "[" * 100_000])
def test_a_probe_that_is_no_object_is_refused_by_name(llama, tmp_path, content):
    build(llama).save_pretrained(tmp_path)
    (tmp_path / "probe.json").write_text(content)
    with pytest.raises(ValueError, match=r"probe\.json is not the probe"):
        Probe.from_pretrained(tmp_path)


def test_a_full_disk_is_said_so_with_the_folder(llama, tmp_path):
    resource = pytest.importorskip("resource")
    model = build(llama)
    torch.manual_seed(0)
    child = os.fork()  # a file may not grow beyond a limit there, as on a full disk
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
            model.save_pretrained(tmp_path / "model")
        except OSError as error:
            os._exit(0 if str(tmp_path / "model") in str(error) and "disk full" in str(error) else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not (tmp_path / "model").exists()
