from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NotRequired

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typing_extensions import TypedDict

from amer.files import (
    Count,
    atomic_directory,
    atomic_write,
    damage_named,
    inside,
    open_npy,
    parquet_batches,
    parquet_metadata,
    read_json,
    read_manifest,
    read_parquet,
    remove_leftovers,
    write_json,
)

ROOT = Path(__file__).resolve().parent.parent


def test_a_write_replaces_the_file_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("old", "new"):
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == path.suffix
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "set"
    with pytest.raises(RuntimeError), atomic_directory(path) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    path.mkdir()
    with atomic_directory(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("whole")
        assert list(path.iterdir()) == []
    assert (path / "inner" / "a").read_text() == "whole"
    with pytest.raises(FileExistsError, match="not empty"), atomic_directory(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_and_what_is_no_json_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"name": "é", "counts": [1, None]})
    assert read_json(tmp_path / "a.json") == {"name": "é", "counts": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json is not a JSON file"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("name", ["a", "a.npy", "sub/a", "./a", "sub//a", "~/a", "...", "a b", "ü", "-rf", ".hidden"])
def test_a_name_from_data_is_a_path_in_the_folder(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "./", "..", "../a", "sub/../a", "sub/../../a", "/", "/etc/passwd", "//host/a"),
        *("C:a", "C:\\a", "..\\a", "\\a", "a\0b", "half \ud83d", None, 7, ["a"], b"a"),
    ],
    ids=lambda name: repr(name)[:20],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="must be a relative path and must not lead out of the folder"):
        inside(tmp_path, name)


def test_links_may_not_lead_out_of_the_folder(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    for made in (folder / "sub", other):
        made.mkdir(parents=True)
    (other / "secret").write_text("secret")
    links = {"file": other / "secret", "dir": other, "up": "..", "self": ".", "loop": "loop", "broken": other / "no"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    for name in (*links, "dir/secret", "up/other/secret", "loop/a"):
        with pytest.raises(ValueError, match="must not lead out"):
            inside(folder, name)
    (folder / "sub" / "own").symlink_to("../a")
    assert inside(folder, "sub/own") == folder / "sub" / "own"
    (tmp_path / "link").symlink_to(folder)  # where the folder itself lies is the caller's affair
    assert inside(tmp_path / "link", "a") == tmp_path / "link" / "a"


def test_the_links_of_the_hubs_cache_are_followed(tmp_path):
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    for made in (snapshot / "sub", blobs):
        made.mkdir(parents=True)
    (blobs / "f00").write_text("content")
    (snapshot / "a").symlink_to("../../blobs/f00")
    (snapshot / "sub" / "a").symlink_to("../../../blobs/f00")
    (snapshot / "b").symlink_to("../../refs")
    assert inside(snapshot, "a").read_text() == inside(snapshot, "sub/a").read_text() == "content"
    assert inside(snapshot / "sub", "a").read_text() == "content"
    with pytest.raises(ValueError, match="must not lead out"):
        inside(snapshot, "b")


KILLED = """
import os, signal, sys
from pathlib import Path
from amer.files import atomic_directory
with atomic_directory(sys.argv[1]) as folder:
    (folder / "vectors.npy").write_bytes(bytes(1000))
    print("writing", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_write_has_left_goes_with_the_next_and_what_is_alive_stays(tmp_path):
    start = [sys.executable, "-c", KILLED, str(tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed, alive = (
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    )
    try:
        for process in (killed, alive):
            assert process.stdout.readline() == "writing\n"
        killed.communicate("\n")
        (tmp_path / ".other").mkdir()
        assert len(list(tmp_path.iterdir())) == 3
        with atomic_directory(tmp_path / "store") as folder:
            (folder / "vectors.npy").write_bytes(b"")
        names = [path.name for path in tmp_path.iterdir()]
        assert len(names) == 3 and {"store", ".other"} < set(names)  # and what is being written
    finally:
        alive.communicate("\n")
    remove_leftovers(tmp_path, "stor?")
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path, "store")
    assert {path.name for path in tmp_path.iterdir()} == {"store", ".other"}


class Described(TypedDict):
    """A manifest."""

    count: Count
    parts: NotRequired[list[dict[str, int]]]
    width: NotRequired[int | None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the whole file: Input should be a valid dict"),
        ("{}", "count: Field required"),
        ('{"count": "3"}', "count: Input should be a valid integer"),
        ('{"count": true}', "count: Input should be a valid integer"),
        ('{"count": 0}', "count: Input should be greater than or equal to 1"),
        ('{"count": 1, "parts": [{"a": 1}, {"a": null}]}', r"parts\.1\.a: Input should be a valid integer"),
        ('{"count": 3.5}', "count: Input should be a valid integer"),
        ('{"count": 1, "width": 1.5}', "width: Input should be a valid integer"),
        ('{"count": NaN}', "count: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named_by_file_and_field(tmp_path, text, message):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=rf"m\.json has wrong or missing fields: {message}"):
        read_manifest(tmp_path / "m.json", Described)


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"count": 1' + "0" * 5_000 + "}"], ids=["empty", "deep", "long"])
def test_a_manifest_that_is_no_json_is_named(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=r"m\.json is not a JSON file"):
        read_manifest(tmp_path / "m.json", Described)
    with pytest.raises(FileNotFoundError, match=r"n\.json"):
        read_manifest(tmp_path / "n.json", Described)


def test_a_manifest_keeps_the_fields_it_is_not_asked_for(tmp_path):
    write_json(tmp_path / "m.json", {"count": 3, "more": {"a": [1]}})
    assert read_manifest(tmp_path / "m.json", Described) == {"count": 3, "more": {"a": [1]}}
    assert read_manifest(tmp_path / "m.json", dict) == {"count": 3, "more": {"a": [1]}}


TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "yy", "zzz"]})


@pytest.mark.parametrize("read", [read_parquet, parquet_metadata, lambda file: list(parquet_batches(file))])
def test_a_parquet_file_that_is_missing_or_cut_is_named(tmp_path, read):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    read(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(OSError, match=r"t\.parquet is truncated, damaged or not a Parquet file"):
        read(tmp_path / "t.parquet")
    with pytest.raises(FileNotFoundError, match=r"u\.parquet is missing"):
        read(tmp_path / "u.parquet")


@pytest.mark.parametrize("read", [read_parquet, lambda file: list(parquet_batches(file))])
def test_any_flipped_byte_of_a_parquet_file_is_refused_by_name_or_gives_a_table(tmp_path, read):
    pq.write_table(TABLE, tmp_path / "t.parquet", compression="snappy")
    content = (tmp_path / "t.parquet").read_bytes()
    refused = 0
    for place in range(len(content)):
        (tmp_path / "t.parquet").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = read(tmp_path / "t.parquet")
            for part in found if isinstance(found, list) else [found]:
                part.to_pylist()
        except OSError as error:
            refused += 1
            assert str(tmp_path / "t.parquet") in str(error)
    assert refused > len(content) // 4


def test_batches_are_cut_to_size_and_folders_add_no_columns(tmp_path):
    folder = tmp_path / "year=2020"
    folder.mkdir()
    pq.write_table(TABLE, folder / "t.parquet")
    assert read_parquet(folder / "t.parquet").equals(TABLE)
    assert read_parquet(folder / "t.parquet", ["b"]).column_names == ["b"]
    batches = list(parquet_batches(folder / "t.parquet", ["a"], size=2))
    assert [batch.num_rows for batch in batches] == [2, 1] and batches[0].schema.names == ["a"]


def test_only_numbers_are_read_from_npy_files(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    assert np.array_equal(open_npy(tmp_path / "a.npy"), np.eye(2)) and not open_npy(tmp_path / "a.npy").flags.writeable
    content = (tmp_path / "a.npy").read_bytes()
    np.savez(tmp_path / "z", a=np.eye(2))
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    damaged = [b"", b"PAR1", content[:40], content[:-1], content.replace(b"(2, 2)", b"(2, 9)")]
    damaged.append(content.replace(b"'descr'", b"'descr ("))
    damaged += [(tmp_path / name).read_bytes() for name in ("z.npz", "o.npy")]
    for wrong in damaged:
        (tmp_path / "b.npy").write_bytes(wrong)
        with pytest.raises(OSError, match=r"b\.npy is truncated, damaged or not a \.npy file"):
            open_npy(tmp_path / "b.npy")


def test_errors_of_other_kinds_pass(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(KeyError), damage_named(tmp_path / "a", "toy"):
        raise KeyError
