"""Exact search in torch: on the CPU from memory or from the memory-mapped store, on GPUs from GPU memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from amer.corpus.store import DocumentStore
from amer.search.index.base import flat_queries

READ_ROWS = 65_536  # store rows read at a time while vectors are loaded
HELD_BYTES = 2**28  # most float32 bytes that the CPU keeps in memory: 174,762 vectors of 384 values


class Pace(NamedTuple):
    """Block sizes of an exact search: large blocks cost memory, small blocks cost more calls.

    Attributes:
        rows: Documents per block.
        scores: Inner products computed at a time, float32. This limits the query vectors per step.
    """

    rows: int
    scores: int


CPU_PACE = Pace(rows=2**13, scores=2**23)  # 32 MiB: block and scores stay close to the processor's caches
GPU_PACE = Pace(rows=2**18, scores=2**30)  # 4 GiB: a block keeps the device busy for milliseconds


class Part(NamedTuple):
    """The part of a store on one device: vectors `(rows, dim)` from `first_row` on, in the store's precision."""

    first_row: int
    vectors: torch.Tensor


class ExactIndex:
    """Exact search in torch.

    On the CPU, the first search of a small store (at most `held_bytes` as float32) keeps its vectors in memory as
    float32, because the conversion from float16 takes three times as long as the search. A search of a larger store
    reads the memory-mapped files block by block and keeps nothing.

    A GPU (or another device) holds all vectors from the beginning in the store's precision: `2 * n * dim` bytes for
    float16. Several GPUs hold equal parts and search in parallel. Query vectors are rounded to the same precision.
    This changes a few in 10,000 of the top 100, all near the last rank, and scores by less than 1e-4. Products are
    exact and summed in float32.

    Attributes:
        store: The store that the index searches.
        devices: Devices of the search.
        dtype: Precision of the vectors in the inner products: float32 on the CPU, the store's on other devices.
    """

    def __init__(
        self,
        store: DocumentStore,
        device: str | torch.device | Sequence[str | torch.device] = "cpu",
        held_bytes: int = HELD_BYTES,
    ) -> None:
        """Load the vectors, unless the device is the CPU.

        Args:
            store: The store to search.
            device: Device or devices, such as "cpu", "cuda" or `["cuda:0", "cuda:1"]`.
            held_bytes: Keep the vectors in CPU memory only if they take at most this many bytes as float32. 0: never.

        Raises:
            MemoryError: The vectors do not fit the devices.
            ValueError: There is no device, or the CPU is combined with others.
        """
        self.store = store
        several = [device] if isinstance(device, str | torch.device) else device
        self.devices = tuple(torch.device(one) for one in several)
        kinds = {one.type for one in self.devices}
        if not kinds or ("cpu" in kinds and len(self.devices) > 1):
            raise ValueError(f'device must be "cpu", or one or several other devices such as "cuda", got {device!r}')
        self._parts = None if kinds == {"cpu"} else load_parts(store, self.devices)
        self._holds = 4 * len(store) * store.dim <= held_bytes
        self._held: torch.Tensor | None = None
        self.dtype = torch.float32 if self._parts is None else getattr(torch, store.dtype)

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search as in `Index.search`, in one pass over the store. Equal scores are in ascending order of rows."""
        shape, queries = flat_queries(query_embeddings, self.store.dim, k, self.dtype)
        allowed = None if filter is None else np.flatnonzero(self.store.matching(filter))
        if self._parts is None:
            scores, rows = self._on_cpu(queries, k, allowed)
        else:
            scores, rows = _search_parts(self._parts, queries, k, allowed)
        return rows.numpy().reshape(shape), scores.numpy().reshape(shape)

    def _on_cpu(self, queries: torch.Tensor, k: int, allowed: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
        if allowed is not None:
            return nearest_allowed(self.store, queries, k, allowed)
        if not self._holds:
            blocks = self.store.blocks(CPU_PACE.rows)
            return nearest(queries, ((first_row, torch.from_numpy(block)) for first_row, block in blocks), k)
        if self._held is None:
            self._held = load_vectors(self.store, self.devices[0], dtype=torch.float32)
        return nearest(queries, held_blocks(self._held), k)


def nearest_allowed(
    store: DocumentStore, queries: torch.Tensor, k: int, allowed: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Search as `nearest`, but only in the rows `allowed` (ascending). Reads no other rows."""
    cuts = range(0, len(allowed), CPU_PACE.rows)
    blocks = ((start, torch.from_numpy(store.vectors(allowed[start : start + CPU_PACE.rows]))) for start in cuts)
    scores, places = nearest(queries, blocks, k)
    return scores, _rows_at(places, torch.from_numpy(allowed))


def complete_lists(
    store: DocumentStore, queries: torch.Tensor, k: int, filter: str | None, rows: np.ndarray, scores: np.ndarray
) -> None:
    """Complete short lists in place by exact search. An index may list too few documents, as after a strict filter.

    Args:
        store: The store that was searched.
        queries: `(n, dim)`.
        k: Length of the lists.
        filter: Filter of the search.
        rows: `(n, k)` rows found so far, padded with -1. Modified.
        scores: `(n, k)` scores of these rows. Modified.
    """
    found = (rows >= 0).sum(axis=1)
    if (found == k).all():
        return
    allowed = np.arange(len(store)) if filter is None else np.flatnonzero(store.matching(filter))
    short = np.flatnonzero(found < min(k, len(allowed)))
    if len(short):
        exact_scores, exact_rows = nearest_allowed(store, queries[short], k, allowed)
        rows[short], scores[short] = exact_rows.numpy(), exact_scores.numpy()


def _search_parts(
    parts: Sequence[Part], queries: torch.Tensor, k: int, allowed: np.ndarray | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Search the parts of all devices, each in its own thread, and merge the lists."""

    def search(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        scores, rows = _search_part(part, queries, k, allowed)
        return scores.cpu(), rows.cpu()

    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(search, parts))
    scores, rows = (torch.cat(column, dim=1) for column in zip(*found, strict=True))
    scores, order = scores.sort(
        dim=1, descending=True, stable=True
    )  # parts are in row order, so ties keep the lower row first
    return scores[:, :k].contiguous(), rows.gather(1, order[:, :k])


def _search_part(
    part: Part, queries: torch.Tensor, k: int, allowed: np.ndarray | None
) -> tuple[torch.Tensor, torch.Tensor]:
    device = part.vectors.device
    queries = queries.to(device)
    if allowed is None:
        scores, rows = nearest(queries, held_blocks(part.vectors), k)
        return scores, torch.where(rows < 0, rows, rows + part.first_row)
    start, stop = np.searchsorted(allowed, (part.first_row, part.first_row + len(part.vectors)))
    rows = torch.from_numpy(allowed[start:stop]).to(device)
    size = _pace(device).rows
    blocks = ((at, part.vectors[rows[at : at + size] - part.first_row]) for at in range(0, len(rows), size))
    scores, places = nearest(queries, blocks, k)
    return scores, _rows_at(places, rows)


def _rows_at(places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return `rows[places]`, with -1 where a place is -1."""
    return rows[places.clamp(min=0)].where(places >= 0, -1) if len(rows) else places


def load_parts(store: DocumentStore, devices: Sequence[torch.device]) -> list[Part]:
    """Load all vectors of a store in equal parts onto the devices.

    Raises:
        MemoryError: The vectors do not fit.
    """
    size = -(-len(store) // len(devices))
    starts = range(0, len(store), size)
    return [
        Part(start, load_vectors(store, device, start, min(start + size, len(store))))
        for start, device in zip(starts, devices, strict=False)  # a tiny store may have no rows for the last devices
    ]


def load_vectors(
    store: DocumentStore,
    device: torch.device,
    start: int = 0,
    stop: int | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Load vectors of a store onto a device: `(stop - start, dim)`. Default: all, in the store's precision.

    Raises:
        MemoryError: The vectors do not fit.
    """
    stop = len(store) if stop is None else stop
    dtype = dtype or getattr(torch, store.dtype)
    try:
        vectors = torch.empty((stop - start, store.dim), dtype=dtype, device=device)
    except torch.OutOfMemoryError as error:
        size = (stop - start) * store.dim * dtype.itemsize / 2**30
        raise MemoryError(
            f"the {stop - start} vectors of {store.path} take {size:.3g} GiB, more than {device} has free: search on "
            'several devices, or on the CPU (device="cpu"), which reads them from disk'
        ) from error
    for first_row, block in store.blocks(READ_ROWS, start, stop):
        vectors[first_row - start : first_row - start + len(block)] = torch.from_numpy(block)
    return vectors


def held_blocks(vectors: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield `(first row, (rows, dim))` blocks of vectors `(n, dim)` without a copy, sized for their device."""
    rows = _pace(vectors.device).rows
    return zip(range(0, len(vectors), rows), vectors.split(rows), strict=True)


@torch.no_grad()
def nearest(
    queries: torch.Tensor, blocks: Iterable[tuple[int, torch.Tensor]], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k greatest inner products of every query with the rows of all blocks: exact, in one pass.

    Scores are float32: products of float16 numbers are exact in float32 and are summed there.

    Args:
        queries: `(n, dim)`, float32 or in the precision of the blocks.
        blocks: `(first row, (rows, dim))`, on the device of the queries.
        k: Length of the lists.

    Returns:
        Scores `(n, k)` float32 and rows `(n, k)` int64, best first. Equal scores are in ascending order of rows. If
        documents tie for the last rank, any of them may be listed. Short lists are padded with row -1 and score -inf.
    """
    scores = torch.full((len(queries), k), -torch.inf, device=queries.device)
    rows = torch.full_like(scores, -1, dtype=torch.int64)
    for first_row, block in blocks:
        step = max(1, _pace(queries.device).scores // len(block))
        for part in (slice(start, start + step) for start in range(0, len(queries), step)):
            worst = scores[part].amin(dim=1, keepdim=True)
            found, columns = _candidates(_inner_products(queries[part], block), worst, k)
            scores[part], order = torch.cat([scores[part], found], dim=1).topk(k, dim=1, sorted=False)
            rows[part] = torch.cat([rows[part], first_row + columns], dim=1).gather(1, order)
    rows, order = rows.sort(dim=1)
    scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores, rows.gather(1, order)


def _inner_products(queries: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """`(n, dim)` and `(rows, dim)` -> `(n, rows)` float32."""
    if queries.is_cuda and queries.dtype == torch.float16:
        return torch.mm(queries, block.T, out_dtype=torch.float32)
    return queries.float() @ block.float().T


def _candidates(scores: torch.Tensor, worst: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores of a block that include the k greatest ones which can enter the lists, without sorting the block.

    The columns are split into groups, and only the maxima of the groups are compared, which reads the scores once. The
    k greatest scores lie in the k groups with the greatest maxima: for any other group, these k maxima are at least as
    great as all its scores. A group whose maximum does not exceed a list's last score cannot enter that list.

    Args:
        scores: `(n, rows)`.
        worst: `(n, 1)`, the last score of each list so far.
        k: Length of the lists.

    Returns:
        Scores `(n, c)` and their columns `(n, c)`, without repeats.
    """
    n, rows = scores.shape
    size = 1 << math.isqrt(rows // k).bit_length()  # balances the number of groups and the members of k groups
    groups = rows // size
    # Members of a group are `groups` columns apart, so the maxima of adjacent groups are computed together.
    maxima = scores[:, : size * groups].unflatten(1, (size, groups)).amax(1)
    hopeless = int((maxima <= worst).sum(1).min())
    chosen = maxima.topk(min(k, groups - hopeless), dim=1, sorted=False).indices
    members = (chosen[:, None] + groups * torch.arange(size, device=scores.device)[:, None]).flatten(1)
    ungrouped = torch.arange(size * groups, rows, device=scores.device).expand(n, -1)
    columns = torch.cat([members, ungrouped], dim=1)
    return scores.gather(1, columns), columns


def _pace(device: torch.device) -> Pace:
    return CPU_PACE if device.type == "cpu" else GPU_PACE
