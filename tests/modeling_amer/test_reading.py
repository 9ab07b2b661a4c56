"""Reading a model changes nothing, whatever a downloaded folder asks for; finishing a save stays in its folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from modeling_amer import AMERConfig, AMERModel, Probe
from modeling_amer.staging_amer import PENDING, finish_interrupted_save, place_of_save
from tests.conftest import build


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Every entry of a folder: what it is, when it changed, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    }


def load(folder: Path) -> None:
    """Read what there is to read, as any user does."""
    AMERConfig.from_pretrained(folder)
    AMERModel.from_pretrained(folder, verify=True)
    Probe.from_pretrained(folder)


@pytest.fixture
def home(llama, tmp_path) -> Path:
    """A home with files of its own and a downloaded model in `models/evil`."""
    home = tmp_path / "h"
    build(llama).save_pretrained(home / "models" / "evil")
    (home / ".bashrc").write_text("original")
    (home / "Documents").mkdir()
    (home / "Documents" / "thesis.txt").write_text("original")
    return home


def make_manifest(evil: Path, names: list[str]) -> None:
    """The list of files to move that every load obeyed once."""
    (evil / ".amer-saved").mkdir()
    (evil / ".amer-saved" / "files.json").write_text(json.dumps(names))


def test_a_list_of_files_outside_the_model_is_not_obeyed(home):
    evil = home / "models" / "evil"
    names = [path.name for path in evil.iterdir()]
    make_manifest(evil, [*names, "../.bashrc", "../../.bashrc"])
    (evil / ".bashrc").write_text("echo pwned")
    before = snapshot(home)
    load(evil)
    assert snapshot(home) == before and (home / ".bashrc").read_text() == "original"
    AMERModel.from_pretrained(evil).save_pretrained(evil)  # nor by a writer
    assert (home / ".bashrc").read_text() == "original" and not (home / "models" / ".bashrc").exists()


def test_files_behind_a_link_are_not_deleted(home):
    evil = home / "models" / "evil"
    make_manifest(evil, [])
    (evil / "adapter").symlink_to("../../Documents")
    before = snapshot(home)
    load(evil)
    assert snapshot(home) == before
    AMERModel.from_pretrained(evil).save_pretrained(evil)
    assert (home / "Documents" / "thesis.txt").read_text() == "original"


def test_nor_when_a_save_is_pending_there(home):
    evil = home / "models" / "evil"
    (evil / "adapter").symlink_to("../../Documents")
    model = AMERModel.from_pretrained(evil)
    shutil.copytree(evil, home / "pending", ignore=lambda *_: ["adapter"])
    (home / "pending").rename(evil / PENDING)
    before = snapshot(home)
    load(evil)
    assert snapshot(home) == before
    model.save_pretrained(evil)
    assert (home / "Documents" / "thesis.txt").read_text() == "original" and not (evil / PENDING).exists()


LINKS = {
    "a file": lambda evil, home: (evil / PENDING / "probe.json").symlink_to(home / ".bashrc"),
    "a folder": lambda evil, home: (evil / PENDING / "adapter").symlink_to(home / "Documents"),
    "where a folder must go": lambda evil, home: (
        (evil / "additional").symlink_to(home / "Documents"),
        (evil / PENDING / "additional").mkdir(),
        (evil / PENDING / "additional" / "thesis.txt").write_text("pwned"),
    ),
    "the pending save": lambda evil, home: (
        (evil / PENDING).rmdir(),
        (evil / PENDING).symlink_to(home / "Documents"),
    ),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_writer_refuses_a_pending_save_with_links(home, link):
    evil = home / "models" / "evil"
    (evil / PENDING).mkdir()
    LINKS[link](evil, home)
    with pytest.raises(OSError, match="symbolic link"):
        finish_interrupted_save(evil)
    assert (home / ".bashrc").read_text() == "original"
    assert [path.name for path in (home / "Documents").iterdir()] == ["thesis.txt"]
    assert (home / "Documents" / "thesis.txt").read_text() == "original"


def test_a_link_in_the_place_of_a_file_is_replaced_and_what_it_leads_to_stays(home):
    evil = home / "models" / "evil"
    model = AMERModel.from_pretrained(evil)
    (evil / "probe.json").unlink()
    (evil / "probe.json").symlink_to(home / ".bashrc")
    model.save_pretrained(evil)
    assert (home / ".bashrc").read_text() == "original" and not (evil / "probe.json").is_symlink()


def test_a_folder_that_cannot_be_written_is_read(home):
    """Nothing is tried: a read-only mount would refuse it."""
    evil = home / "models" / "evil"
    (evil / PENDING).mkdir()
    for name in [path.name for path in evil.iterdir() if path.is_file()]:
        os.rename(evil / name, evil / PENDING / name)
    changes = []
    real = {name: getattr(os, name) for name in ("rename", "replace", "remove", "unlink", "mkdir", "rmdir", "link")}
    with pytest.MonkeyPatch.context() as patch:
        for name, function in real.items():
            patch.setattr(
                os, name, lambda *args, name=name, act=function, **kw: (changes.append(name), act(*args, **kw))
            )
        load(evil)
        assert AMERModel.from_pretrained(home / "models", subfolder="evil") is not None
    assert changes == [] and place_of_save(evil) == PENDING


def test_a_full_model_in_many_files_is_read_from_a_pending_save(llama, tmp_path):
    model = build(llama, lora=None)
    model.save_pretrained(tmp_path / "new", max_shard_size="20KB")
    build(llama).save_pretrained(tmp_path / "model")  # what was there before, of another kind
    (tmp_path / "new").rename(tmp_path / "model" / PENDING)
    before = snapshot(tmp_path)
    found = AMERModel.from_pretrained(tmp_path / "model", verify=True)
    assert found.config.weights == "full" and found.encode_query("bank").equal(model.encode_query("bank"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("change", ["a file outside", "no index"])
def test_an_index_names_weights_of_the_model_only(llama, change, tmp_path):
    build(llama, lora=None).save_pretrained(tmp_path / "model", max_shard_size="20KB")
    file = tmp_path / "model" / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    if change == "no index":
        file.write_text("[]")
        with pytest.raises(OSError, match="does not list which file holds which weight"):
            AMERModel.from_pretrained(tmp_path / "model")
        return
    index["weight_map"] = {name: f"../model/{shard}" for name, shard in index["weight_map"].items()}
    file.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="not the name of a weights file"):
        AMERModel.from_pretrained(tmp_path / "model")


ATTENTION = ["kernels-community/flash-attn2", "evil/kernel:run", "paged|eager", "flash_attention_9"]


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("nested", [False, True], ids=["own", "decoder"])
def test_a_downloaded_config_cannot_choose_an_attention_of_the_hub(home, attention, field, nested):
    evil = home / "models" / "evil"
    config = json.loads((evil / "config.json").read_text())
    (config["text_config"] if nested else config)[field] = attention
    (evil / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="may be one of eager, sdpa"):
        AMERModel.from_pretrained(evil)


def test_nor_can_its_base_nor_one_for_each_part(home, llama):
    shutil.copytree(llama, home / "base")
    config = json.loads((home / "base" / "config.json").read_text())
    (home / "base" / "config.json").write_text(json.dumps({**config, "attn_implementation": ATTENTION[0]}))
    with pytest.raises(OSError, match=r"base model .* could not be loaded.*may be one of eager"):
        AMERModel.from_pretrained(home / "models" / "evil", base_model_name_or_path=str(home / "base"))
    config = json.loads((home / "models" / "evil" / "config.json").read_text())
    config["attn_implementation"] = {"": "sdpa", "text_config": ATTENTION[0]}
    (home / "models" / "evil" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="may be one of eager"):
        AMERConfig.from_pretrained(home / "models" / "evil")


@pytest.mark.parametrize(
    "attention", ["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", None]
)
def test_a_downloaded_config_may_choose_a_known_attention(home, attention):
    evil = home / "models" / "evil"
    config = json.loads((evil / "config.json").read_text())
    (evil / "config.json").write_text(json.dumps({**config, "attn_implementation": attention}))
    assert AMERConfig.from_pretrained(evil)._attn_implementation == attention


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/model.safetensors", "..", "config.json", ""]
)
def test_checksums_name_weights_of_the_model_only(home, name):
    evil = home / "models" / "evil"
    config = json.loads((evil / "config.json").read_text())
    config["checksums"] = {name: "0" * 64}
    (evil / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not the name of a weights file"):
        AMERModel.from_pretrained(evil)
