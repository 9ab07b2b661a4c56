"""The order of the questions in an epoch. It depends neither on the number of processes nor on interruptions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

MEGABATCH = 50  # number of batches sorted by length together, as in the Trainer's own group_by_length


class EpochDataset(Dataset[dict[str, Any]]):
    """A split indexed by (epoch, question). Its items include the epoch, which determines their random draws."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        return {**self.dataset[index], "epoch": epoch}


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, question) for all questions, in an order that depends only on the seed and the epoch.

    The first questions of the epoch fill up the last batch. All batches are therefore complete and can be split among
    any number of processes that divides the batch size.

    Args:
        count: Number of questions.
        batch_size: Batch size of all processes together.
        seed: Seed of the order.
        lengths: Lengths of the questions. If given, a batch holds questions of similar length; the batches stay in
            random order.
    """

    def __init__(self, count: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. Call this before each epoch; the Trainer does so only in some cases."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        order = [order[place % self.count] for place in range(len(self))]
        if self.lengths is not None:
            order = self._grouped(order, self.lengths, generator)
        epoch = self.epoch
        return ((epoch, index) for index in order)

    def _grouped(self, order: list[int], lengths: Sequence[int], generator: torch.Generator) -> list[int]:
        """Sort by length within groups of `MEGABATCH` batches, then shuffle the batches."""
        stretch, size = MEGABATCH * self.batch_size, self.batch_size
        for start in range(0, len(order), stretch):
            order[start : start + stretch] = sorted(order[start : start + stretch], key=lengths.__getitem__)
        places = torch.randperm(len(order) // size, generator=generator).tolist()
        return [index for place in places for index in order[place * size : (place + 1) * size]]
