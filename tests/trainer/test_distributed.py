"""Two real processes: training in step, checkpoints that resume, shards that are saved whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import modeling_amer
from amer.files import read_json
from tests.trainer import processes

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).parents[2]


def run_processes(count: int, script: str, *arguments: str, timeout: int = 500) -> subprocess.CompletedProcess:
    """Run a script of this folder in `count` processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    return subprocess.run(
        [*torchrun, str(Path(__file__).with_name(script)), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def launch(count: int, script: str, *arguments: str) -> None:
    """Run a script of this folder in `count` processes and see it come through."""
    done = run_processes(count, script, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr  # the first traceback tells


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory) -> Path:
    """What tests/trainer/two_processes.py left behind, once it has come through."""
    folder = tmp_path_factory.mktemp("two")
    launch(2, "two_processes.py", str(folder), llama)
    return folder


@pytest.fixture(scope="module")
def numbers(llama, tmp_path_factory) -> Path:
    """What tests/trainer/processes.py found with one process, with two and with four."""
    folder = tmp_path_factory.mktemp("numbers")
    processes.main(folder, llama)
    for count in (2, 4):
        launch(count, "processes.py", str(folder), llama, str(count))
    return folder


def assert_same(found: Path, expected: Path, tolerance: float) -> None:
    found, expected = load_file(found), load_file(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name] - value).abs().max()
        assert difference <= tolerance * max(1, value.abs().max()), (name, difference)


@pytest.mark.parametrize("spread", ["replicated", "sharded"])
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_have_the_loss_and_gradient_of_one(numbers, count, spread):
    assert_same(numbers / f"{spread}-{count}.safetensors", numbers / "replicated-1.safetensors", 1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_find_what_one_finds(numbers, count):
    expected = read_json(numbers / "evaluated-1.json")
    assert read_json(numbers / f"evaluated-{count}.json") == pytest.approx(expected)
    assert 0 < expected["eval_recall@10"] < 1


@pytest.mark.parametrize("run", ["run-2", "run-4", "resumed-1", "resumed-2", "resumed-4"])
def test_a_run_ends_alike_in_any_number_of_processes_and_when_another_number_goes_on(numbers, run):
    assert_same(numbers / run / "model.safetensors", numbers / "run-1" / "model.safetensors", 1e-5)
    moved = load_file(numbers / "run-1" / "checkpoint-4" / "model.safetensors")
    last = load_file(numbers / "run-1" / "model.safetensors")
    assert max((moved[name] - last[name]).abs().max() for name in last) > 1e-3


def test_a_launch_of_two_processes_starts_two(folder):
    assert {path.name for path in folder.glob("log-*.txt")} == {"log-0.txt", "log-1.txt"}


def test_one_query_vector_trains_under_checkpointing(folder):
    """Runs, with both processes in step: tests/trainer/two_processes.py says what was looked at."""
    assert (folder / "single").is_dir()


def test_a_run_cut_in_two_ends_as_the_whole_one(folder):
    whole, resumed = (load_file(folder / name / "model.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(whole[key].equal(resumed[key]) for key in whole)


def test_a_loss_that_is_not_finite_in_one_process_is_refused_by_both(folder):
    said = [(folder / f"refused-{rank}.txt").read_text() for rank in range(2)]
    assert all("The loss is not finite at step 2: training has diverged" in text for text in said)


def test_checkpoints_hold_the_adapter_and_no_pickled_arguments(folder):
    checkpoint = folder / "whole" / "checkpoint-4"
    assert not any("embed_tokens" in key for key in load_file(checkpoint / "model.safetensors"))
    assert (checkpoint / "training_args.json").is_file() and not (checkpoint / "training_args.bin").exists()
    assert (checkpoint / "probe.json").is_file() and (checkpoint / "modeling_amer.py").is_file()


def test_a_sharded_model_is_saved_with_our_code(folder):
    code = {file.name for file in Path(modeling_amer.__file__).parent.glob("*_amer.py")}
    assert {file.name for file in (folder / "sharded").glob("*.py")} == code
    assert '"AutoModel": "modeling_amer.AMERModel"' in (folder / "sharded" / "config.json").read_text()
    assert not (folder / "sharded" / "probe.json").exists()  # it would be taken by one process with its shard


def test_resuming_warns_of_no_missing_weights(folder):
    logs = "".join((folder / f"log-{rank}.txt").read_text() for rank in range(2))
    assert "missing" not in logs and "not initialized" not in logs, logs
