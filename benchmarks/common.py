"""Shared parts of the benchmarks: machine, time, memory, peak rate of matrix products, tables and JSON."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Column, Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from amer.corpus import DocumentStore, write_store
from amer.files import write_json
from amer.machine import hardware, hardware_line, versions

ROOT = Path(__file__).resolve().parent.parent
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Watches = list[tuple[Any, str, "str | Callable[..., str]"]]  # arguments of Clock.watch
Options = Mapping[str, tuple[Any, ...]]  # see `read_arguments`
Row = dict[str, Any]
console = Console(width=180)


def run(script: str, description: str | None, options: Options, measure: Callable[[Any], Iterable[Row]]) -> None:
    """Run a whole script: read its arguments, measure, and report the rows."""
    arguments = read_arguments(script, description, options)
    report(arguments, list(measure(arguments)))


def read_arguments(script: str, description: str | None, options: Options) -> argparse.Namespace:
    """Parse the command line of a script: the common options (`--device`, `--repeats`, ...) and its own.

    Args:
        script: The script's `__file__`; the default output is named after it.
        description: Description of the script, its docstring.
        options: Name -> the default value, or the type if there is no default; help; and arguments for argparse.
    """
    shared: Options = {
        "device": ("cpu", "device: cpu or cuda"),
        "repeats": (3, "measured runs of each system; the median counts"),
        "seed": (0, "seed of all random inputs"),
        "output": (ROOT / "outputs" / "benchmarks" / f"{Path(script).stem}.json", "JSON file to write"),
    }
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, (default, meaning, *words) in {**shared, **options}.items():
        kind: dict[str, Any] = {"type": default}
        if isinstance(default, list):
            kind = {"type": type(default[0]), "default": default, "nargs": "+"}
        elif default is False:
            kind = {"action": "store_true"}
        elif not isinstance(default, type):
            kind = {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", help=meaning, **kind, **dict(*words))
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    return arguments


def store_without_texts(path: Path, count: int, vectors: Any, **metadata: pa.Array) -> DocumentStore:
    """Make a store of `count` documents with vectors (as for `write_store`) and metadata, but without texts."""
    ids, empty = pa.array(np.arange(count)).cast(pa.string()), pa.array([""] * count)
    documents = pa.table({"id": ids, "title": empty, "text": empty, **metadata})
    return write_store(path, documents, vectors, {"name": "synthetic"})


def timed(function: Callable[[], Any], repeats: int = 3, warm_up: int = 1) -> list[float]:
    """Seconds of each of `repeats` calls, after `warm_up` unmeasured calls; waits for the GPU."""
    for _ in range(warm_up):
        function()
    seconds = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def median_seconds(function: Callable[[], Any], repeats: int = 3, warm_up: int = 1) -> float:
    """The median of [`timed`]."""
    return statistics.median(timed(function, repeats, warm_up))


def synchronize() -> None:
    """Wait until the GPU is done, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Clock:
    """Splits the time of a run into phases: every moment counts for the innermost open phase.

    It watches functions from outside, so the measured code needs no change. On a GPU every change of phase waits for
    the device, so a watched run is a little slower than one that is only timed.

    Attributes:
        seconds: Seconds so far in each phase.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside for `name`, except the time of inner phases."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    @contextmanager
    def watch(self, owner: Any, function: str, name: str | Callable[..., str]) -> Iterator[None]:
        """Make every call of `owner.function` inside a phase; `name` may be a function of the call's arguments."""
        original = getattr(owner, function)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name if isinstance(name, str) else name(*args, **kwargs)):
                return original(*args, **kwargs)

        with patch.object(owner, function, watched):
            yield

    @property
    def current(self) -> str | None:
        """The innermost open phase."""
        return self._open[-1] if self._open else None

    def shares(self) -> dict[str, float]:
        """The share of each phase in the whole time, the largest first."""
        whole = sum(self.seconds.values())
        return {name: seconds / whole for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1])}

    def _turn(self) -> None:
        synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def peak_memory(function: Callable[[], Any], device: torch.device | str = "cpu") -> int:
    """The peak of bytes in tensors during one call, beyond those that existed before.

    On a GPU this is the allocator's count. On the CPU it is the profiler's exact record of all allocations by torch;
    memory of NumPy and of work spaces of libraries is not included. Run the function once before, so that one-time
    allocations (such as an optimiser's state) are not counted.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        synchronize()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        synchronize()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def count_flops(run: Callable[[Clock], Any]) -> int:
    """FLOPs of the matrix products of one run, with the backward pass; nothing in it may be compiled yet."""
    with FlopCounterMode(display=False) as counter:
        run(Clock())
    return counter.get_total_flops()


def measure(
    run: Callable[[Clock], Any],
    watches: Callable[[Clock], Watches],
    arguments: argparse.Namespace,
    warm_up: int = 1,
    repeats: int | None = None,
) -> dict[str, Any]:
    """Measure time, peak memory and phases of some work, each in separate runs.

    Args:
        run: The work; it gets a clock for the phases that it names itself.
        watches: Function from a clock to the functions that the clock should watch.
        arguments: Arguments from [`read_arguments`].
        warm_up: Number of runs before the timed ones.
        repeats: Number of timed runs; the median counts.
    """
    seconds = median_seconds(lambda: run(Clock()), repeats or arguments.repeats, warm_up)
    peak = peak_memory(lambda: run(Clock()), arguments.device)
    clock = Clock()
    with ExitStack() as stack:
        for watch in watches(clock):
            stack.enter_context(clock.watch(*watch))
        run(clock)
    return {"seconds": seconds, "peak MB": peak / 2**20, "phases": clock.shares()}


def matmul_rate(device: torch.device | str, dtype: torch.dtype) -> float:
    """The ceiling: FLOP/s of square matrix products on this device, at the fastest size."""
    rates = []
    for size in (4096, 8192) if torch.device(device).type == "cuda" else (512, 1024, 2048):
        left, right = torch.randn(2, size, size, device=device).to(dtype)
        rates.append(2 * size**3 / min(timed(partial(torch.matmul, left, right), repeats=10, warm_up=1)))
    return max(rates)


def report(arguments: argparse.Namespace, rows: list[dict[str, Any]], **more: Any) -> None:
    """Print the rows as tables and write them, with machine and arguments, to `arguments.output`.

    Args:
        arguments: Arguments from [`read_arguments`].
        rows: Figures with the units in their names; `phases`, if a row has them, are shown in a separate table.
        more: Further content of the JSON.
    """
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    facts = {
        **hardware(arguments.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    console.print(_table(rows, hardware_line(facts)))
    phases = []
    for row in rows:
        if "phases" in row:
            labels = {name: value for name, value in row.items() if isinstance(value, str | int)}
            phases.append({**labels, **{name: f"{share:.1%}" for name, share in row["phases"].items()}})
    if phases:
        console.print(_table(phases, "share of each phase"))
    write_json(arguments.output, {"machine": facts, "arguments": given, "rows": rows, **more})
    console.print(f"written: {arguments.output}")


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    """Make a table with one line per row and one column per name; a missing figure leaves the cell empty."""
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "phases"]
    shown = Table(*(Column(name, justify="right") for name in columns), title=title, title_justify="left")
    for row in rows:
        shown.add_row(*("" if row.get(name) is None else _figure(row[name]) for name in columns))
    return shown


def _figure(value: Any) -> str:
    """Format a number with three significant digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
