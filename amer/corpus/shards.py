"""Vectors on disk in shards. Any number of processes can fill them, and resume after one was killed."""

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
    """Unit vectors in files called `embeddings-00003-of-00012.npy` (the second number is the number of files).

    Attributes:
        directory: Directory of the files.
        name: Prefix of the file names.
        count: Rows of all files together.
        size: Rows of every file but the last.
        row_shape: `(dim,)`, or `(m, dim)` if a row holds several vectors.
        dtype: Precision on disk.
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
        """Return the path of shard `index`."""
        return self.directory / f"{self.name}-{index:05d}-of-{len(self):05d}.npy"

    def rows(self, index: int) -> slice:
        """Return the rows of shard `index`."""
        return slice(index * self.size, min((index + 1) * self.size, self.count))

    def open(self, index: int) -> np.ndarray:
        """Memory-map shard `index`, `(rows, *row_shape)` in the stored dtype, after checking its header and file size.

        Raises:
            FileNotFoundError: The shard is missing.
            OSError: The shard is truncated, or not a `.npy` file.
            ValueError: The shard has another shape or dtype.
        """
        file, rows = self.file(index), self.rows(index)
        shard = open_npy(file)
        expected = (rows.stop - rows.start, *self.row_shape)
        if shard.shape != expected or shard.dtype != self.dtype:
            raise ValueError(
                f"{file} holds {shard.dtype} {shard.shape}, expected {self.dtype} {expected}: it belongs to another "
                "directory"
            )
        size, expected_size = file.stat().st_size, shard.offset + shard.nbytes
        if size != expected_size:
            raise OSError(f"{file} has {size} bytes, expected {expected_size}: delete it and encode it again")
        return shard.view(np.ndarray)

    def write(self, index: int, vectors: np.ndarray) -> None:
        """Write shard `index` atomically, from unit vectors `(rows, *row_shape)`."""
        file = self.file(index)
        vectors = np.asarray(vectors, dtype=np.float32)
        check_unit(vectors, file.name)
        stored = np.ascontiguousarray(vectors, dtype=self.dtype)
        with atomic_write(file) as temporary, open(temporary, "wb") as stream:
            # Same bytes as np.save, which reports no error if the disk becomes full during the last few kilobytes.
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(stored))
            stream.write(stored.data)

    def of_worker(self, worker: int, num_workers: int) -> range:
        """Return every `num_workers`-th shard, starting with `worker`.

        The assignment does not depend on finished shards, so two workers never take the same one.
        """
        if not 0 <= worker < num_workers:
            raise ValueError(f"worker must lie in 0..{num_workers - 1} (num_workers={num_workers}), got {worker}")
        return range(worker, len(self), num_workers)

    def fill(
        self, indices: Iterable[int], encode: Callable[[slice], np.ndarray], unit: str, show_progress_bar: bool
    ) -> None:
        """Write the missing shards among `indices`, except those that another process is writing.

        Args:
            indices: Shards to fill.
            encode: Maps rows to their unit vectors, `(rows, *row_shape)`.
            unit: Name of a row, for the progress bar.
            show_progress_bar: Show how many rows are done, without those left to other processes.

        Raises:
            OSError, ValueError: An existing shard is damaged. Nothing is encoded then.
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
            smoothing=0,  # average the rate over all rows that this call has encoded
            disable=not show_progress_bar,
        )
        with progress:
            for index in (index for index in sizes if index not in there):
                if self._write_if_free(index, encode):
                    progress.update(sizes[index])
                else:
                    progress.total -= sizes[index]

    def _write_if_free(self, index: int, encode: Callable[[slice], np.ndarray]) -> bool:
        """Write a shard. Return False if another process is writing it or has written it meanwhile."""
        with try_lock(self.file(index)) as free:
            if not free or self.file(index).is_file():
                return False
            self.write(index, encode(self.rows(index)))
            return True

    def missing(self) -> list[int]:
        """Return the shards that do not exist yet."""
        return [index for index in range(len(self)) if not self.file(index).is_file()]

    def finish(self, name: str, info: Mapping[str, Any]) -> None:
        """Write `info` and a checksum per shard to the JSON file `name`. Call it last: the file marks the end.

        Raises:
            OSError, ValueError: A shard is damaged or missing.
        """
        for index in range(len(self)):
            self.open(index)
        checksums = [file_checksum(self.file(index)) for index in range(len(self))]
        write_json(self.directory / name, {**info, "checksums": checksums})

    def verify(self, index: int, checksum: str) -> None:
        """Read shard `index` and raise OSError if its sha256 is not `checksum`."""
        check_sha256(self.file(index), checksum, "restore it")


def check_unit(vectors: np.ndarray, where: str, first_row: int = 0) -> None:
    """Raise ValueError if a vector is NaN, infinite, zero or not of unit length. The message names the first row.

    Args:
        vectors: `(n, dim)`, or `(n, m, dim)`, where zeros after a row's first vector stand for no vector.
        where: Where the vectors come from, for messages.
        first_row: Number of the first row there.
    """
    lengths = np.linalg.norm(vectors, axis=-1)
    good = np.abs(lengths - 1) <= UNIT_TOLERANCE  # a NaN fails this comparison
    if vectors.ndim == 3:
        good[:, 1:] |= lengths[:, 1:] == 0
    bad = np.argwhere(~good)
    if len(bad):
        raise ValueError(
            f"{where}: the vector of row {first_row + bad[0][0]} has length {lengths[tuple(bad[0])]:.4g}, "
            f"{len(bad)} such vectors; embeddings must be finite and of length 1 (L2-normalise them)"
        )
