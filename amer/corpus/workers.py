"""Which of several processes this is, however they were launched: by hand, `accelerate launch` or `torchrun`."""

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
        index: its number, over all machines.
        count: how many there are.
        device: where its model runs.
        is_first_here: whether it is the one of its machine that shows progress.
    """

    index: int
    count: int
    device: str
    is_first_here: bool


@contextmanager
def this_worker(device: str | None) -> Iterator[Worker]:
    """This process as one of those that were launched together; alone, it is the only one.

    Args:
        device: where the model runs; by default each process gets a GPU of its own, or the CPU where there is none.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    if device is None:
        # Not "cpu:0": moving there copies the weights, to addresses at which the CPU's kernels round otherwise.
        device = "cpu" if state.device.type == "cpu" else str(state.device)
    if state.is_main_process:  # accelerate starts a single process where there is no GPU, and does not say so
        Console().print(f"processes: {state.num_processes}, this one on {device}", markup=False)
    try:
        yield Worker(state.process_index, state.num_processes, device, state.is_local_main_process)
    finally:
        state.destroy_process_group()
