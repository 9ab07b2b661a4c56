"""What is hashed at load: an adapter always, a file of gigabytes once, and everything with verify=True."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_amer import AMERConfig, AMERModel, checksums_amer
from tests.conftest import LORA, build


@pytest.fixture
def hashed(tmp_path, monkeypatch) -> list[str]:
    """The files that were hashed so far; the cache is a new one, and every file counts as large."""
    monkeypatch.setenv("AMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums_amer, "LARGE", 0)
    names, real = [], checksums_amer.sha256
    monkeypatch.setattr(checksums_amer, "sha256", lambda file: (names.append(file.name), real(file))[1])
    return names


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture
def full(llama, tmp_path):
    build(llama, lora=None).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_large_file_is_hashed_once_and_again_when_asked(full, hashed):
    for _ in range(2):
        AMERModel.from_pretrained(full)
        assert hashed == ["model.safetensors"]
    AMERModel.from_pretrained(full, verify=True)
    assert hashed == ["model.safetensors"] * 2


def test_a_small_file_is_hashed_at_every_load(full, hashed, monkeypatch):
    monkeypatch.setattr(checksums_amer, "LARGE", 256 * 2**20)
    for times in (1, 2):
        AMERModel.from_pretrained(full)
        assert hashed == ["model.safetensors"] * times


def test_an_adapter_is_hashed_at_every_load_however_large(llama, hashed, tmp_path):
    build(llama, lora=LORA).save_pretrained(tmp_path / "model")
    for times in (1, 2):
        AMERModel.from_pretrained(tmp_path / "model")
        assert hashed == ["model.safetensors"] * times
    assert not (tmp_path / "cache").exists()


def test_a_flipped_bit_is_refused_though_the_file_is_remembered(full, hashed):
    AMERModel.from_pretrained(full)
    flip_a_bit(full / "model.safetensors")
    for _ in range(2):
        with pytest.raises(OSError, match=r"model\.safetensors is not the file that was saved"):
            AMERModel.from_pretrained(full)


def test_another_file_of_the_same_size_and_time_is_hashed(full, hashed):
    AMERModel.from_pretrained(full)
    file = full / "model.safetensors"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    (full / "other").write_bytes(file.read_bytes())
    flip_a_bit(full / "other")
    os.replace(full / "other", file)
    os.utime(file, ns=times)
    with pytest.raises(OSError, match="not the file that was saved"):
        AMERModel.from_pretrained(full)


def test_a_bit_that_flips_unseen_is_found_with_verify(full, hashed):
    AMERModel.from_pretrained(full)
    file = full / "model.safetensors"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with file.open("r+b") as stream:  # in place: same inode, same size
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    os.utime(file, ns=times)
    with pytest.raises(OSError, match="not the file that was saved"):
        AMERModel.from_pretrained(full, verify=True)


def test_a_remembered_file_that_is_gone_is_told(full, hashed):
    AMERModel.from_pretrained(full)
    (full / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AMERModel.from_pretrained(full)


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"/some/file": 3}', "\ud800"], ids=repr)
def test_notes_that_cannot_be_read_are_written_anew(full, hashed, notes, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "checksums.json").write_bytes(notes.encode("utf-8", "surrogatepass"))
    for _ in range(2):
        AMERModel.from_pretrained(full)
    assert hashed == ["model.safetensors"]
    assert str(full / "model.safetensors") in json.loads((tmp_path / "cache" / "checksums.json").read_text())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["checksums.json"]


def test_a_cache_that_cannot_be_written_means_hashing_again(full, hashed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AMER_CACHE", str(tmp_path / "file" / "cache"))  # not even root can make a folder in a file
    for times in (1, 2):
        AMERModel.from_pretrained(full)
        assert hashed == ["model.safetensors"] * times


def test_the_notes_do_not_grow_for_ever(hashed, tmp_path, monkeypatch):
    monkeypatch.setattr(checksums_amer, "REMEMBERED_FILES", 2)
    for name in ("a", "b", "c", "b", "a"):
        (tmp_path / name).write_text(name)
        checksums_amer.check_sha256(tmp_path / name, checksums_amer.sha256(tmp_path / name), remember=True)
    notes = json.loads((tmp_path / "cache" / "checksums.json").read_text())
    assert [os.path.basename(path) for path in notes] == ["b", "a"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_configuration_and_a_tokenizer_that_changed_are_refused_by_name(llama, tmp_path, name):
    build(llama).save_pretrained(tmp_path)
    text = (tmp_path / name).read_text()
    changed = text.replace('"num_query_vectors": 3', '"num_query_vectors": 7')
    changed = f"{text} " if name == "tokenizer.json" else changed
    assert changed != text
    (tmp_path / name).write_text(changed)
    with pytest.raises(OSError, match=rf"{name.replace('.', '[.]')} .* saved"):
        AMERModel.from_pretrained(tmp_path)
    (tmp_path / name).write_text(text)
    AMERModel.from_pretrained(tmp_path)


def test_a_configuration_that_is_changed_on_purpose_loads_without_its_seal(llama, tmp_path):
    build(llama).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["sealed"]
    (tmp_path / "config.json").write_text(json.dumps({**fields, "num_query_vectors": 7}))
    assert AMERModel.from_pretrained(tmp_path).config.num_query_vectors == 7
    AMERConfig.from_pretrained(tmp_path, num_query_vectors=2).save_pretrained(tmp_path)  # as transformers' users do it
    assert AMERModel.from_pretrained(tmp_path).config.num_query_vectors == 2


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
def test_weights_cast_to_whole_numbers_are_refused(llama, tmp_path, lora):
    build(llama, lora=lora).save_pretrained(tmp_path)
    file, fields = tmp_path / "model.safetensors", json.loads((tmp_path / "config.json").read_text())
    weights = load_file(file)
    weights["output_projection.weight"] = weights["output_projection.weight"].to(torch.int8)
    save_file(weights, file, metadata={"format": "pt"})
    fields["checksums"] = {file.name: checksums_amer.sha256(file)}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    checksums_amer.seal(tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors holds weights that are not floats, .*output_projection"):
        AMERModel.from_pretrained(tmp_path)


def test_vectors_without_length_are_refused(llama, tmp_path):
    model = build(llama)
    with torch.no_grad():
        model.output_projection.weight.zero_()
    with pytest.raises(ValueError, match="length zero"):
        model.encode_query(["bank"])
    with pytest.raises(ValueError, match="length zero"):
        model.save_pretrained(tmp_path)
