"""Run several trainings in parallel, each in its own process with one thread, with one progress display."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from amer.machine import hardware

COMMAND = (sys.executable, "-m", "amer")
LOG_FILE = "train.log"  # name of the log in the output folder
SECONDS_TO_END = 10.0


@dataclass(frozen=True)
class Training:
    """One training by `amer train`.

    Attributes:
        name: Name on the display.
        output: Folder of the model.
        arguments: Command-line words after `amer`.
        steps: Total number of steps.
        steps_per_epoch: Number of steps per pass over the questions.
    """

    name: str
    output: Path
    arguments: list[str]
    steps: int
    steps_per_epoch: int


def run_trainings(trainings: Sequence[Training], console: Console) -> None:
    """Run all trainings, in parallel up to the number of cores. Interrupted trainings resume.

    The output of a training goes to `train.log` in its folder. If one fails or the user interrupts, all stop.

    Raises:
        ChildProcessError: A training failed; the message gives the reason and the log.
    """
    parallel = min(len(trainings), hardware("cpu")["cores"])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    processes = _Processes()
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
        ThreadPoolExecutor(parallel, "amer-fit") as pool,
    ):
        tasks = [progress.add_task(training.name, total=training.steps, loss="") for training in trainings]
        futures = [
            pool.submit(_train, training, processes, progress, task)
            for training, task in zip(trainings, tasks, strict=True)
        ]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            processes.end()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Processes:
    """The started processes. After `end`, none of them runs, and no further one can start."""

    def __init__(self) -> None:
        self._lock, self._ended = Lock(), False
        self._started: list[subprocess.Popen[str]] = []

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {"CUDA_VISIBLE_DEVICES": "0", **os.environ}  # one process, one GPU
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self._lock:
            if self._ended:
                raise InterruptedError("the trainings were ended")
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            self._started.append(process)
        return process

    def end(self) -> None:
        with self._lock:
            self._ended = True
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()


def _train(training: Training, processes: _Processes, progress: Progress, task: TaskID) -> None:
    """Run one training to its end and show its progress."""
    training.output.mkdir(parents=True, exist_ok=True)
    log, said = training.output / LOG_FILE, ""
    with (
        log.open("a", buffering=1, encoding="utf-8") as lines,
        processes.start([*COMMAND, *training.arguments]) as process,
    ):
        for line in process.stdout or ():
            lines.write(line)
            said = line if line.strip() and not said.startswith("Error: ") else said
            _show(_logged(line), training, progress, task)
    if process.returncode != 0:
        raise ChildProcessError(
            f"the training of {training.name} ended with code {process.returncode}: "
            f"{said.strip().removeprefix('Error: ')} (its output is in {log})"
        )
    progress.update(task, completed=training.steps)


def _logged(line: str) -> dict[str, Any]:
    """The figures in a log line; empty for any other line."""
    try:
        figures = ast.literal_eval(line) if line.startswith("{") else {}
    except (ValueError, SyntaxError):  # for example a bare nan
        return {}
    return figures if isinstance(figures, dict) else {}


def _show(logged: dict[str, Any], training: Training, progress: Progress, task: TaskID) -> None:
    """Move the progress bar to the epoch that the training logs."""
    if "epoch" in logged:
        step = round(float(logged["epoch"]) * training.steps_per_epoch)
        progress.update(task, completed=min(step, training.steps))
    if "loss" in logged:
        progress.update(task, loss=f"loss {float(logged['loss']):.2f}")
