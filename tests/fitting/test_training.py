"""Trainings side by side: how far they are, what becomes of them when one fails and when the user interrupts."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from amer.fitting import training as module
from amer.fitting.training import Training, run_trainings

STUB = """
import os, sys, time
what, folder = sys.argv[1:]
open(f"{folder}/pid", "w").write(str(os.getpid()))
print("Loading weights: 100%")
print({"loss": "5.25", "epoch": "0.5", "threads": os.environ["OMP_NUM_THREADS"]})
if what == "wait":
    time.sleep(60)
if what == "fail":
    print("Error: no such store")
    print("To see the traceback: amer --debug ...")
    sys.exit(1)
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run stand-ins for `amer train` of the given kinds; what the terminal showed."""
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", STUB))

    def run(*kinds: str) -> str:
        stream = io.StringIO()
        trainings = [
            Training(f"training {kind}", tmp_path / kind, [kind, str(tmp_path / kind)], 8, 10) for kind in kinds
        ]
        run_trainings(trainings, Console(file=stream, width=100))
        return stream.getvalue()

    return run


def is_running(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except (ProcessLookupError, FileNotFoundError):  # ended, or never begun
        return False
    return True


def test_trainings_are_run_and_what_they_say_is_kept(train, tmp_path):
    shown = train("one", "two")
    assert "training one" in shown and "training two" in shown
    assert shown.count("8/8") == 2 and shown.count("loss 5.25") == 2
    assert "'threads': '1'" in (tmp_path / "one" / "train.log").read_text()
    train("one")
    assert (tmp_path / "one" / "train.log").read_text().count("Loading") == 2  # what was said before stays


def test_the_bar_is_where_the_epoch_is():
    with Progress(console=Console(file=io.StringIO())) as progress:
        task = progress.add_task("", total=8, loss="")
        one = Training("one", Path(), [], 8, 10)
        for logged, step in (({"epoch": "0.5"}, 5), ({"epoch": "0.61", "loss": "2"}, 6), ({"epoch": "1.0"}, 8)):
            module._show(logged, one, progress, task)
            assert progress.tasks[0].completed == step
        assert progress.tasks[0].fields["loss"] == "loss 2.00"


@pytest.mark.parametrize("line", ["", "Loading", "{'loss': nan}", "{1, 2}", "{"])
def test_lines_that_log_no_figures_move_nothing(line):
    assert module._logged(line) == {}
    assert module._logged("{'epoch': 0.5}\n") == {"epoch": 0.5}


def test_a_failure_names_its_reason_and_ends_the_others(train, tmp_path):
    started = time.monotonic()
    with pytest.raises(
        ChildProcessError, match=r"training fail ended with code 1: no such store \(.*fail/train.log\)"
    ):
        train("wait", "fail")
    assert time.monotonic() - started < 30 and not is_running(tmp_path / "wait")


def test_an_interrupt_ends_all_processes(train, tmp_path):
    def interrupt() -> None:
        while not all((tmp_path / name / "pid").is_file() for name in names):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    names = ["wait"] if module.hardware("cpu")["cores"] == 1 else ["wait", "also"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started without it
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            train("wait", *["also"][: len(names) - 1])
    finally:
        signal.signal(signal.SIGINT, before)
    assert not any(is_running(tmp_path / name) for name in names)


def test_nothing_is_started_behind_the_end():
    processes = module._Processes()
    processes.end()
    with pytest.raises(InterruptedError):
        processes.start([sys.executable, "-c", ""])
