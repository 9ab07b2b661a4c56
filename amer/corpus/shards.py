"""Vectors on disk in shards, which any number of processes fill, and fill on where one was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from amer.checksums import check_sha256, file_checksum
from amer.files import atomic_write, open_npy, write_json
from amer.locks import try_lock

UNIT_TOLERANCE = 1e-2  # float16 rounds the length of a unit vector by less than 1e-3


@dataclass(frozen=True)
class Shards:
    """Unit vectors in files called `embeddings-00003-of-00012.npy` (the second number is how many there are).

    Attributes:
        directory: where the files lie.
        name: what their names begin with.
        count: rows of all files together.
        size: rows of every file but the last.
        row_shape: `(dim,)`, or `(m, dim)` where a row holds several vectors.
        dtype: as stored.
    """

    directory: Path
    name: str
    count: int
    size: int
    row_shape: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def file(self, index: int) -> Path:
        """Where shard `index` lies."""
        return self.directory / f"{self.name}-{index:05d}-of-{len(self):05d}.npy"

    def rows(self, index: int) -> slice:
        """Which rows shard `index` holds."""
        return slice(index * self.size, min((index + 1) * self.size, self.count))

    def open(self, index: int) -> np.ndarray:
        """Memory-map shard `index`, `(rows, *row_shape)` in the stored dtype, after checking its header and file size.

        Raises:
            FileNotFoundError: the shard is missing.
            OSError: it is truncated, or not a `.npy` file.
            ValueError: its shape or dtype is another.
        """
        file, rows = self.file(index), self.rows(index)
        shard = open_npy(file)
        expected = (rows.stop - rows.start, *self.row_shape)
        if shard.shape != expected or shard.dtype != self.dtype:
            raise ValueError(
                f"{file} holds {shard.dtype} {shard.shape}, expected {self.dtype} {expected}: it belongs elsewhere"
            )
        size, expected_size = file.stat().st_size, shard.offset + shard.nbytes
        if size != expected_size:
            raise OSError(f"{file} has {size} bytes, expected {expected_size}: delete it and encode it again")
        return shard.view(np.ndarray)

    def write(self, index: int, vectors: np.ndarray) -> None:
        """Write shard `index`, whole or not at all, from unit vectors `(rows, *row_shape)`."""
        file = self.file(index)
        vectors = np.asarray(vectors, dtype=np.float32)
        check_unit(vectors, file.name)
        stored = np.ascontiguousarray(vectors, dtype=self.dtype)
        with atomic_write(file) as temporary, open(temporary, "wb") as stream:
            # What np.save writes; but np.save says nothing when the disk is full at the last few kilobytes.
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(stored))
            stream.write(stored.data)

    def of_worker(self, worker: int, num_workers: int) -> range:
        """Every `num_workers`-th shard from `worker` on.

        Which shards are whose does not depend on what is done already, so that no two workers take the same.
        """
        if not 0 <= worker < num_workers:
            raise ValueError(f"worker must lie in 0..{num_workers - 1} (num_workers={num_workers}), got {worker}")
        return range(worker, len(self), num_workers)

    def fill(
        self, indices: Iterable[int], encode: Callable[[slice], np.ndarray], unit: str, show_progress_bar: bool
    ) -> None:
        """Write those of some shards that are not there and that no other process is writing.

        Args:
            indices: the shards.
            encode: rows -> their unit vectors, `(rows, *row_shape)`.
            unit: what a row is, for the progress bar.
            show_progress_bar: show how many rows are there, of all but those left to other processes.

        Raises:
            OSError, ValueError: a shard was damaged since it was written; nothing is encoded then.
        """
        sizes = {index: self.rows(index).stop - self.rows(index).start for index in indices}
        there = {index for index in sizes if self.file(index).is_file()}
        for index in there:
            self.open(index)
        progress = tqdm(
            total=sum(sizes.values()),
            initial=sum(sizes[index] for index in there),
            desc="Encoding",
            unit=unit,
            smoothing=0,  # so that rate and time left are of all rows of this call, without those that were there
            disable=not show_progress_bar,
        )
        with progress:
            for index in (index for index in sizes if index not in there):
                if self._write_if_free(index, encode):
                    progress.update(sizes[index])
                else:
                    progress.total -= sizes[index]

    def _write_if_free(self, index: int, encode: Callable[[slice], np.ndarray]) -> bool:
        """Write a shard; False if another process is at it, or has been meanwhile."""
        with try_lock(self.file(index)) as free:
            if not free or self.file(index).is_file():
                return False
            self.write(index, encode(self.rows(index)))
            return True

    def missing(self) -> list[int]:
        """The shards that are not there yet."""
        return [index for index in range(len(self)) if not self.file(index).is_file()]

    def finish(self, name: str, info: Mapping[str, Any]) -> None:
        """Write the JSON file `name`, `info` and a checksum per shard: last of all, for it says that all is there.

        Raises:
            OSError, ValueError: a shard was damaged since it was written, or is missing.
        """
        for index in range(len(self)):
            self.open(index)
        checksums = [file_checksum(self.file(index)) for index in range(len(self))]
        write_json(self.directory / name, {**info, "checksums": checksums})

    def verify(self, index: int, checksum: str) -> None:
        """Read shard `index` and raise OSError if its sha256 is not `checksum`."""
        check_sha256(self.file(index), checksum, "restore it")


def check_unit(vectors: np.ndarray, where: str, first_row: int = 0) -> None:
    """ValueError naming the first row whose vector is NaN, infinite, zero or not of unit length.

    Args:
        vectors: `(n, dim)` or `(n, m, dim)`.
        where: what the message calls them.
        first_row: number of their first row there.
    """
    lengths = np.linalg.norm(vectors, axis=-1)
    bad = np.argwhere(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # written so that NaN is bad too
    if len(bad):
        raise ValueError(
            f"{where}: the vector of row {first_row + bad[0][0]} has length {lengths[tuple(bad[0])]:.4g}, "
            f"{len(bad)} such; embeddings must be finite and of length 1 (L2-normalise them)"
        )
