"""Find out which of several processes this is, started by hand, `accelerate launch` or `torchrun`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import PartialState
from rich.console import Console


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a job.

    Attributes:
        index: Number of the process, counted over all machines.
        count: Number of processes.
        device: Device of its model.
        is_first_here: Whether it is the first process on its machine, which shows the progress.
    """

    index: int
    count: int
    device: str
    is_first_here: bool


@contextmanager
def this_worker(device: str | None) -> Iterator[Worker]:
    """Yield this process's place among the processes launched together.

    Args:
        device: Device of the model. Default: a GPU for each process, or the CPU if there is none.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    if device is None:
        # Not "cpu:0": a move there copies the weights to other addresses, where the CPU's kernels round differently.
        device = "cpu" if state.device.type == "cpu" else str(state.device)
    if state.is_main_process:  # without a GPU, accelerate silently starts only one process
        Console().print(f"processes: {state.num_processes}, this one on {device}", markup=False)
    try:
        yield Worker(state.process_index, state.num_processes, device, state.is_local_main_process)
    finally:
        state.destroy_process_group()
