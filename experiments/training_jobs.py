"""Runs several `train.py` jobs in parallel, each once; the studies share it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from amer.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
WHAT = "job.json"  # in the output folder: the settings of the job
DONE = "trainer_state.json"  # in the output folder: the last file that train.py writes


@dataclass(frozen=True)
class Job:
    """One training run: a YAML file, an output folder, and fields that replace those of the file."""

    name: str
    config: Path
    output: Path
    overrides: dict[str, object] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """The settings that determine the result."""
        overrides = {key: str(value) for key, value in self.overrides.items()}
        return {"config": self.config.read_text(encoding="utf-8"), "overrides": overrides}


def run_all(jobs: list[Job], console: Console, parallel: int = 2) -> None:
    """Train what is not trained yet, `parallel` jobs at a time, each on its share of the cores.

    A finished job is kept, an interrupted job resumes from its last checkpoint, and a job with changed settings starts
    again.

    Raises:
        RuntimeError: A job failed; the message names its log.
    """
    threads = max(1, (os.cpu_count() or 1) // parallel)
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(_run, job, console, threads) for job in jobs]
        try:
            for future in futures:
                future.result()
        except BaseException:  # on a failure or an interrupt, waiting jobs do not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def history(job: Job) -> list[dict[str, float]]:
    """The logged metrics of a finished job, step by step."""
    return read_json(job.output / DONE)["log_history"]


def _run(job: Job, console: Console, threads: int) -> None:
    if (job.output / WHAT).is_file() and read_json(job.output / WHAT) != job.describe():
        console.print(f"[bold]{job.name}[/]: settings have changed, training again")
        shutil.rmtree(job.output)
    if (job.output / DONE).is_file():
        console.print(f"[bold]{job.name}[/]: already trained, {job.output}")
        return
    job.output.mkdir(parents=True, exist_ok=True)
    write_json(job.output / WHAT, job.describe())
    options = {"output_dir": job.output, "disable_tqdm": True, **job.overrides}
    arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [sys.executable, *launch, str(ROOT / "train.py"), str(job.config), *arguments]
    started, log = time.perf_counter(), job.output / "train.log"
    console.print(f"[bold]{job.name}[/]: training, log in {log}")
    environment = {"CUDA_VISIBLE_DEVICES": "0", **os.environ}  # one process, one GPU
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w", buffering=1, encoding="utf-8") as lines,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout:
            lines.write(line)
            if line.startswith("{"):
                console.print(f"[dim]{job.name}: {line.strip()}[/]", highlight=False, soft_wrap=True)
    if process.returncode != 0 or not (job.output / DONE).is_file():
        raise RuntimeError(f"Training {job.name!r} failed with code {process.returncode}; see {log}.")
    console.print(f"[bold]{job.name}[/]: trained in {time.perf_counter() - started:.0f} s")
