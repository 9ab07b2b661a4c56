"""Train a grid of settings and keep the one with the lowest validation loss (paper A.5, A.6).

`python -m experiments.sweep SWEEP.yaml --dataset DIR --store DIR --output OUT`. The YAML file has
- `config`: the configuration of `amer train` that the runs start from, relative to the file;
- `grid`: fields of `amer train`, each with a list of values;
- `processes` (default 1): the number of processes that share a batch in the final training. The sweep trains in one
  process with `processes` times `per_device_train_batch_size`: the same training, except for LoRA dropout.

Finished runs are kept and interrupted runs resume. The sweep writes `sweep.json` (every run), `best.yaml` (for
`amer train`) and `sweep.png` to OUT.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from amer.evaluation.plots import COLOURS, new_figure, save_figure
from amer.files import atomic_write, write_json
from amer.trainer.parsing import FIELDS, as_options, parse, read_yaml
from experiments.training_jobs import ROOT, Job, history, run_all

KEYS = {"config", "grid", "processes"}
BATCH = "per_device_train_batch_size"
OWN = {"dataset", "store", "output_dir"}  # fields of `amer train` that this script sets


@dataclass(frozen=True)
class Sweep:
    """A grid of trainings.

    Attributes:
        config: YAML file of `amer train`.
        values: The fields of all runs: those of the file, with `changed` on top.
        changed: Fields of all runs that replace those of the file.
        grid: Field -> values to try.
        processes: Number of processes that share a batch in the final training.
    """

    config: Path
    values: dict[str, Any]
    changed: dict[str, Any]
    grid: dict[str, list[Any]]
    processes: int

    def jobs(self, folder: Path) -> list[tuple[dict[str, Any], Job]]:
        """Every point of the grid and its job; the folder is named after the point."""
        made = []
        for chosen in product(*self.grid.values()):
            point = dict(zip(self.grid, chosen, strict=True))
            name = ", ".join(f"{field} {value}" for field, value in point.items())
            batch = self.processes * {**self.values, **point}.get(BATCH, 8)  # 8: transformers' own
            output = folder / quote(",".join(f"{field}={value}" for field, value in point.items()), safe="=,")
            made.append((point, Job(name, self.config, output, {**self.changed, **point, BATCH: batch})))
        return made


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse `arguments`, or the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="YAML file, such as configs/paper/sweeps/text.yaml")
    parser.add_argument("--dataset", required=True, help="the dataset: a folder or a name on the Hub")
    parser.add_argument("--store", required=True, help="the document store: a folder or a name on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs and the result")
    parser.add_argument("--config", type=Path, help="configuration to use instead of the sweep's")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="fields to set in all runs")
    parser.add_argument("--parallel", type=int, default=1, help="number of runs at a time")
    parser.add_argument(
        "--only", type=int, nargs="+", help="train only these runs, from 1; the last field of the grid varies fastest"
    )
    return parser.parse_args(arguments)


def read_sweep(arguments: argparse.Namespace) -> Sweep:
    """Read the sweep of a command line, and check the settings of every run as `amer train` does.

    Raises:
        ValueError: A file, field or value is invalid for `amer train`; the message names it.
    """
    given = read_yaml(arguments.sweep, KEYS)
    if not arguments.config and "config" not in given:
        raise ValueError(f"{arguments.sweep} names no config: write `config: FILE` there, or give --config")
    config = arguments.config or arguments.sweep.parent / given["config"]
    pairs = (text.partition("=") for text in arguments.set)
    changed = {field: yaml.safe_load(value) for field, _, value in pairs}
    grid, processes = given.get("grid"), given.get("processes", 1)
    if not isinstance(processes, int) or processes < 1:
        raise ValueError(f"{arguments.sweep}: processes must be a number of at least 1, got {processes!r}")
    _check_fields(grid, changed, arguments.sweep)
    where = {"dataset": arguments.dataset, "store": arguments.store}
    values = {**read_yaml(config, FIELDS), **changed, **where}
    sweep = Sweep(config, values, {**changed, **where}, grid, processes)
    for _, job in sweep.jobs(arguments.output):
        *_, args = parse([str(config), *as_options(job.overrides)])
        if args.eval_strategy == "no":
            raise ValueError(f"{config} never validates, so no run can be the best: set eval_strategy: steps")
    return sweep


def _check_fields(grid: Any, changed: Mapping[str, Any], file: Path) -> None:
    """Raise a ValueError unless grid and `changed` are fields of `amer train` with values, each given once."""
    if not isinstance(grid, dict) or not grid:
        raise ValueError(f"{file} needs `grid`: a mapping of fields of `amer train` to lists of values, got {grid!r}")
    for field in (*grid, *changed):
        if field not in FIELDS - OWN:
            raise ValueError(f"{field!r} is not a training field that can be set: see `amer train --fields`")
        if field in grid and field in changed:
            raise ValueError(f"{field!r} is in the grid of {file} and in --set: remove it from one of them")
    for field, values in {**grid, **{field: [value] for field, value in changed.items()}}.items():
        simple = isinstance(values, list) and all(isinstance(value, (str, int, float)) for value in values)
        if not simple or not values or len(set(values)) < len(values):
            raise ValueError(f"{field} takes distinct numbers or words, in the grid as a list; got {values!r}")


def train_all(jobs: list[Job], console: Console, parallel: int) -> list[Job]:
    """Train what is not trained yet; a failed run does not stop the others.

    Returns:
        The failed jobs.
    """

    def failed(job: Job) -> bool:
        try:
            run_all([job], console, parallel)
            best_evaluation(job)
        except RuntimeError as error:
            console.print(f"[bold red]{escape(str(error))}[/]")
            return True
        return False

    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(failed, job) for job in jobs]
        try:
            return [job for job, future in zip(jobs, futures, strict=True) if future.result()]
        except BaseException:  # on an interrupt, waiting runs do not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def best_evaluation(job: Job) -> dict[str, float]:
    """The logged evaluation with the lowest loss of a run: `step`, `eval_loss` and the metrics.

    Raises:
        RuntimeError: The run logged no eval_loss that is a number.
    """
    evaluations = [entry for entry in history(job) if math.isfinite(entry.get("eval_loss", math.nan))]
    if not evaluations:
        raise RuntimeError(
            f"Training {job.name!r} logged no eval_loss: lower eval_steps so that it validates before it ends."
        )
    return min(evaluations, key=lambda entry: entry["eval_loss"])


def save_result(sweep: Sweep, runs: list[dict[str, Any]], failed: list[str], folder: Path) -> None:
    """Write `sweep.json`, `best.yaml` and `sweep.png`; `runs` are the trained runs, the best first."""
    best, config = runs[0], os.path.relpath(sweep.config, ROOT)
    about = {"config": config, "changed": sweep.changed, "processes": sweep.processes, "grid": sweep.grid}
    write_json(folder / "sweep.json", {**about, "best": best["fields"], "runs": runs, "failed": failed})
    told = f"# {config}, chosen among {len(runs)} runs: eval_loss {best['eval_loss']:.6g} at step {best['step']}.\n"
    told += f"# {BATCH} is that of each of {sweep.processes} process(es).\n"
    with atomic_write(folder / "best.yaml") as temporary:
        temporary.write_text(told + yaml.safe_dump({**sweep.values, **best["fields"]}, sort_keys=False), "utf-8")
    plot_losses(sweep.grid, runs, folder / "sweep.png")


def plot_losses(grid: Mapping[str, list[Any]], runs: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel per field: a point for every run, and a line through the best run of each value."""
    figure, panels = new_figure(1.5 + 2.6 * len(grid), 3.6, columns=len(grid), share_y=True)
    for axes, (field, values) in zip(np.ravel(panels), grid.items(), strict=True):
        places = [values.index(run["fields"][field]) for run in runs]
        lowest = {place: run["eval_loss"] for place, run in zip(reversed(places), reversed(runs), strict=True)}
        losses = [run["eval_loss"] for run in runs]
        axes.plot(places, losses, "o", color=COLOURS[5], markeredgecolor="white", label="a run")
        axes.plot(*zip(*sorted(lowest.items()), strict=True), "D-", color=COLOURS[1], label="the best with this value")
        axes.set_xticks(range(len(values)), [str(value) for value in values])
        axes.set_xlabel(field)
        axes.margins(x=0.12)
    np.ravel(panels)[0].set_ylabel("Lowest validation loss")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)


def result_table(sweep: Sweep, runs: list[dict[str, Any]]) -> Table:
    """Make a table of the runs, the best first."""
    columns = (Column(escape(name), justify="right", overflow="fold") for name in (*sweep.grid, "step", "eval_loss"))
    table = Table(*columns, title="Lowest validation loss of each run")
    for run in runs:
        values = (escape(str(value)) for value in run["fields"].values())
        table.add_row(*values, str(run["step"]), f"{run['eval_loss']:.4f}")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Train all runs and choose the best; the exit status is 1 if a run failed."""
    parsed, console = parse_arguments(arguments), Console()
    sweep = read_sweep(parsed)
    jobs = sweep.jobs(parsed.output)
    wrong = [number for number in parsed.only or () if not 1 <= number <= len(jobs)]
    if wrong:
        raise ValueError(f"--only takes numbers from 1 to {len(jobs)}, got {wrong}")
    chosen = jobs if parsed.only is None else [jobs[number - 1] for number in sorted(set(parsed.only))]
    console.print(f"{len(chosen)} of the {len(jobs)} runs of {parsed.sweep}")
    failed = train_all([job for _, job in chosen], console, parsed.parallel)
    if parsed.only is None and len(failed) < len(jobs):
        trained = [(point, job) for point, job in jobs if job not in failed]
        runs = [{"fields": point, "folder": job.output.name, **best_evaluation(job)} for point, job in trained]
        runs.sort(key=lambda run: run["eval_loss"])
        save_result(sweep, runs, [job.name for job in failed], parsed.output)
        console.print(result_table(sweep, runs))
        console.print(f"The best is in {parsed.output / 'best.yaml'}")
    for job in failed:
        console.print(f"[bold red]failed:[/] {escape(job.name)}, see {job.output / 'train.log'}")
    return min(1, len(failed))


if __name__ == "__main__":
    sys.exit(main())
