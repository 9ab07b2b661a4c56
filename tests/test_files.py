from __future__ import annotations

import pytest

from amer.files import atomic_directory, atomic_write, read_json, write_json


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
