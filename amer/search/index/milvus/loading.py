"""Insert a store into a Milvus collection in batches, resume interrupted insertions, and verify the rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from amer.corpus.store import DocumentStore
from amer.search.index.milvus.collection import MilvusCollection

MOST_ROWS = 5_000  # per batch
MESSAGE_BYTES = 2**24  # per batch; servers reject messages above 64 MiB
ROWS_SEEN = 16_384  # entities that Milvus lists in one answer, at most
ROUNDS = 3  # of verification and repair
POLL_SECONDS = 1.0


def fill(collection: MilvusCollection, store: DocumentStore, batch_rows: int, show_progress_bar: bool) -> None:
    """Write the missing rows of a store, and verify that each row is present exactly once.

    Every batch is an upsert: it replaces entities with the same rows. So a batch may be sent again after a lost answer
    or a killed process, or by another process that fills the same collection.

    Raises:
        OSError: The server is unavailable, or rows keep disappearing.
    """
    ranges = list(missing(collection, 0, len(store), batch_rows))
    for _ in range(ROUNDS):
        _write(collection, store, ranges, show_progress_bar)
        collection.flush()
        wrong = broken(collection, len(store))
        ranges = [part for start, stop in wrong for part in _cut(start, stop, batch_rows)]
        if not ranges:
            return
    raise OSError(
        f"the collection {collection.name!r} does not hold each row exactly once, for example rows {ranges[0][0]} to "
        f"{ranges[0][1] - 1}, although they were written: check that nothing else writes to the collection"
    )


def missing(collection: MilvusCollection, start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the incomplete ranges, ascending, each of at most `size` rows. Finds them by halving."""
    found = collection.count(start, stop)
    if found == stop - start:
        return
    if not found or stop - start <= size:
        yield from _cut(start, stop, size)
        return
    middle = start + -(-(stop - start) // (2 * size)) * size
    yield from missing(collection, start, middle, size)
    yield from missing(collection, middle, stop, size)


def broken(collection: MilvusCollection, count: int) -> list[tuple[int, int]]:
    """Return the ranges of rows in [0, count) that do not hold every row exactly once."""
    return [
        (start, stop)
        for start, stop in _cut(0, count, ROWS_SEEN)
        if len(collection.rows(start, stop)) != stop - start or collection.count(start, stop) != stop - start
    ]


def wait_for_index(collection: MilvusCollection, count: int, show_progress_bar: bool) -> None:
    """Wait until the server has indexed all rows.

    Raises:
        OSError: Indexing failed.
    """
    with tqdm(total=count, unit="row", desc="indexing", disable=not show_progress_bar) as bar:
        while True:
            index = collection.index()
            bar.update(min(index["indexed_rows"], count) - bar.n)
            if index["state"] == "Failed":
                reason = index.get("index_state_fail_reason", "no reason given")
                raise OSError(f"Milvus could not index the collection {collection.name!r}: {reason}")
            if index["state"] == "Finished" and not index["pending_index_rows"]:
                return
            time.sleep(POLL_SECONDS)


def rows_of_a_batch(store: DocumentStore, longest: dict[str, int], wanted: int) -> int:
    """Return how many rows a batch may have, even if all strings are as long as the longest.

    Raises:
        ValueError: `wanted` is below 1.
    """
    if wanted < 1:
        raise ValueError(f"batch_rows must be at least 1, got {wanted}")
    row_bytes = 4 * store.dim + 16 * (1 + len(store.metadata)) + sum(longest.values())
    return min(wanted, MOST_ROWS, max(1, MESSAGE_BYTES // row_bytes))


def _write(
    collection: MilvusCollection, store: DocumentStore, ranges: list[tuple[int, int]], show_progress_bar: bool
) -> None:
    left = sum(stop - start for start, stop in ranges)
    with tqdm(
        total=len(store), initial=len(store) - left, unit="row", desc="inserting", disable=not show_progress_bar
    ) as bar:
        for start, stop in ranges:
            collection.write(_entities(store, start, stop))
            bar.update(stop - start)


def _entities(store: DocumentStore, start: int, stop: int) -> list[dict[str, Any]]:
    rows = np.arange(start, stop)
    documents = store.documents(rows) if store.metadata else [{}] * len(rows)
    return [
        {"row": row, "vector": vector, **{name: document[name] for name in store.metadata}}
        for row, vector, document in zip(rows.tolist(), store.vectors(rows), documents, strict=True)
    ]


def _cut(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]
