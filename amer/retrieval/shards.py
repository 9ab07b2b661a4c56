"""Vectors on disk in shards, which any number of processes fill, and fill on where one was killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from amer.files import atomic_write, read_json, write_json

RUN_FILE = "encoding.json"  # what an unfinished directory is becoming
KILLED_WRITES = f".{'[0-9a-f]' * 32}.*"  # the temporary names of `amer.files`
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
        try:
            shard = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise FileNotFoundError(f"{file} is missing: restore it or encode again") from None
        except (ValueError, EOFError) as error:
            raise OSError(f"{file} is truncated or no .npy file ({error}): delete it and encode it again") from error
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
        with atomic_write(file) as temporary, open(temporary, "wb") as stream:
            np.save(stream, vectors.astype(self.dtype), allow_pickle=False)

    def missing(self, worker: int, num_workers: int, unit: str, show_progress_bar: bool) -> Iterator[int]:
        """The shards that are not there yet, of every `num_workers`-th one from `worker` on.

        Which shards are whose does not depend on what is done already, so that no two workers take the same.

        Raises:
            OSError, ValueError: a shard was damaged since it was written.
        """
        if not 0 <= worker < num_workers:
            raise ValueError(f"worker must lie in 0..{num_workers - 1} (num_workers={num_workers}), got {worker}")
        own = {index: self.rows(index) for index in range(worker, len(self), num_workers)}
        total = sum(rows.stop - rows.start for rows in own.values())
        with tqdm(total=total, desc="Encoding", unit=unit, disable=not show_progress_bar) as progress:
            for index, rows in own.items():
                if self.file(index).is_file():
                    self.open(index)
                else:
                    yield index
                progress.update(rows.stop - rows.start)

    def complete(self) -> bool:
        """Whether every shard is there, whoever wrote it."""
        return all(self.file(index).is_file() for index in range(len(self)))

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
        if file_checksum(self.file(index)) != checksum:
            raise OSError(f"{self.file(index)} is damaged: its sha256 is not the one that was recorded; restore it")


@contextmanager
def claimed(directory: Path, finished: str, info: Mapping[str, Any]) -> Iterator[None]:
    """Work in a directory that is becoming what `info` says, beside other processes that do, and no others.

    Everyone at work holds a lock on the directory, which the kernel takes back however its holder ends. Who gets it
    alone knows that all temporary files are of killed processes, and removes them. Where a file system locks no
    directories they stay: hidden, and read by nobody.

    Args:
        directory: new, empty, or of the same `info`.
        finished: name of the JSON file that makes it whole, written last; `info` is part of it.
        info: what the directory holds, as JSON has it.

    Raises:
        ValueError: the directory is, or is becoming, something else; says what differs.
        FileExistsError: it holds other files.
    """
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: choose a new or empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        alone = _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not alone:
            _locked(descriptor, fcntl.LOCK_SH)  # waits for the one that is alone to make its claim
        _claim(directory, finished, info)
        if alone:
            for leftover in directory.glob(KILLED_WRITES):
                leftover.unlink()
            _locked(descriptor, fcntl.LOCK_SH)
        yield
        if (directory / finished).is_file():
            (directory / RUN_FILE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, operation: int) -> bool:
    """Whether the lock was to be had; not if others hold it, nor on file systems without locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def _claim(directory: Path, finished: str, info: Mapping[str, Any]) -> None:
    """Note in the directory what it is becoming, or check that it was becoming, or is, the same."""
    for name in (finished, RUN_FILE, finished):  # twice: another worker may finish between the first two looks
        with suppress(FileNotFoundError):
            return _check_same(directory / name, info)
    others = {*directory.iterdir()} - {*directory.glob(KILLED_WRITES)}
    if others:
        raise FileExistsError(f"{directory} holds other files: choose a new or empty directory")
    write_json(directory / RUN_FILE, info)


def _check_same(file: Path, info: Mapping[str, Any]) -> None:
    recorded = read_json(file)
    differing = [key for key, value in info.items() if recorded.get(key) != value]
    if differing:
        details = "; ".join(f"{key}: there {recorded.get(key)}, now {info[key]}" for key in differing)
        raise ValueError(f"{file} is of something else ({details}): choose another directory")


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


def file_checksum(file: Path) -> str:
    """sha256 of a file."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
