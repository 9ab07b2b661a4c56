"""A directory that one process keeps to itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amer import locks
from amer.locks import own_directory

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys
from pathlib import Path
from amer.locks import own_directory
with own_directory(Path(sys.argv[1]), "training"):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def test_a_directory_is_one_process_s_until_that_ends_however_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.2)
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert held.stdout.readline() == "mine\n"
        with (
            pytest.raises(BlockingIOError, match=r"another process is training in .*out"),
            own_directory(tmp_path / "out", "training"),
        ):
            pytest.fail("two at a time")
    finally:
        held.send_signal(signal.SIGKILL)
        held.communicate()
    with own_directory(tmp_path / "out", "training"):
        (tmp_path / "out" / "file").touch()
    assert (tmp_path / "out" / "file").is_file()


def test_a_directory_that_stays_empty_was_never_there(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(ValueError, match="no"), own_directory(tmp_path / name, "training"):
            raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError), own_directory(tmp_path / "out", "training"):
        pytest.fail("a file")
