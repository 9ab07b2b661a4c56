"""Exact search in torch: on the CPU from memory or the memory-mapped store, on GPUs from their memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from amer.corpus.store import DocumentStore
from amer.search.index.base import flat_queries

READ_ROWS = 65_536  # store rows read at a time, to be held
HELD_BYTES = 2**28  # of float32 vectors that are held on the CPU: 174,762 of 384 values


class Pace(NamedTuple):
    """How much an exact search does at a time: large blocks cost memory, small ones more calls.

    Attributes:
        rows: documents of a block.
        scores: inner products of a block with as many query vectors, float32.
    """

    rows: int
    scores: int


CPU_PACE = Pace(rows=2**13, scores=2**23)  # 32 MiB: block and scores stay close to the processor's caches
GPU_PACE = Pace(rows=2**18, scores=2**30)  # 4 GiB: a block keeps the device busy for milliseconds


class Part(NamedTuple):
    """What one device holds of a store: the vectors `(rows, dim)` from `first_row` on, in the store's precision."""

    first_row: int
    vectors: torch.Tensor


class ExactIndex:
    """Exact search in torch.

    On the CPU the first search of a small store keeps its vectors as float32 (`held_bytes` at most): to make them of
    float16 takes three times as long as to search them. Of a larger store every search reads the memory-mapped files
    block by block and keeps nothing. A GPU (or another device) holds all vectors from the beginning, in the store's
    own precision: `2 * n * dim` bytes of float16; several hold equal parts and search them side by side. Query vectors
    are then rounded to that precision too, which changes a few in 10,000 of the top 100, all close to the last place,
    and scores by less than 1e-4; products are exact and summed in float32.

    Attributes:
        store: what is searched.
        devices: where.
        dtype: what the inner products are of: float32 on the CPU, on other devices the store's.
    """

    def __init__(
        self,
        store: DocumentStore,
        device: str | torch.device | Sequence[str | torch.device] = "cpu",
        held_bytes: int = HELD_BYTES,
    ) -> None:
        """Load the vectors, unless the device is the CPU.

        Args:
            store: what to search.
            device: where, such as "cpu", "cuda" or `["cuda:0", "cuda:1"]`.
            held_bytes: most that the vectors may take as float32 to be kept on the CPU; 0 keeps none.

        Raises:
            MemoryError: they do not fit the devices.
            ValueError: no device, or the CPU beside others.
        """
        self.store = store
        several = [device] if isinstance(device, str | torch.device) else device
        self.devices = tuple(torch.device(one) for one in several)
        kinds = {one.type for one in self.devices}
        if not kinds or ("cpu" in kinds and len(self.devices) > 1):
            raise ValueError(f"device must be the CPU or one or several others, got {device!r}")
        self._parts = None if kinds == {"cpu"} else load_parts(store, self.devices)
        self._holds = 4 * len(store) * store.dim <= held_bytes
        self._held: torch.Tensor | None = None
        self.dtype = torch.float32 if self._parts is None else getattr(torch, store.dtype)

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.search`; of equal scores the lower row first, and all vectors share one pass over the store."""
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
    """As `nearest`, over some ascending rows of a store, of which it reads no others."""
    cuts = range(0, len(allowed), CPU_PACE.rows)
    blocks = ((start, torch.from_numpy(store.vectors(allowed[start : start + CPU_PACE.rows]))) for start in cuts)
    scores, places = nearest(queries, blocks, k)
    return scores, _rows_at(places, torch.from_numpy(allowed))


def complete_lists(
    store: DocumentStore, queries: torch.Tensor, k: int, filter: str | None, rows: np.ndarray, scores: np.ndarray
) -> None:
    """Search exactly, in place, where an index lists fewer documents than there are, say because of a filter.

    Args:
        store: what was searched.
        queries: `(n, dim)`.
        k: length of the lists.
        filter: what was searched with.
        rows: `(n, k)` that were found, -1 where there are fewer.
        scores: of these.
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
    """Search every device's part, each by a thread of its own, and merge the lists."""

    def search(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        scores, rows = _search_part(part, queries, k, allowed)
        return scores.cpu(), rows.cpu()

    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(search, parts))
    scores, rows = (torch.cat(column, dim=1) for column in zip(*found, strict=True))
    scores, order = scores.sort(dim=1, descending=True, stable=True)  # parts ascend, so of ties the lower row first
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
    """`rows[places]`, and -1 where a place is -1."""
    return rows[places.clamp(min=0)].where(places >= 0, -1) if len(rows) else places


def load_parts(store: DocumentStore, devices: Sequence[torch.device]) -> list[Part]:
    """All vectors of a store, in equal parts on the devices.

    Raises:
        MemoryError: they do not fit.
    """
    size = -(-len(store) // len(devices))
    starts = range(0, len(store), size)
    return [
        Part(start, load_vectors(store, device, start, min(start + size, len(store))))
        for start, device in zip(starts, devices, strict=False)  # a tiny store may not reach the last of many
    ]


def load_vectors(
    store: DocumentStore,
    device: torch.device,
    start: int = 0,
    stop: int | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Vectors of a store on a device, `(stop - start, dim)`; all of them, and in its own precision, by default.

    Raises:
        MemoryError: they do not fit.
    """
    stop = len(store) if stop is None else stop
    dtype = dtype or getattr(torch, store.dtype)
    try:
        vectors = torch.empty((stop - start, store.dim), dtype=dtype, device=device)
    except torch.OutOfMemoryError as error:
        size = (stop - start) * store.dim * dtype.itemsize / 2**30
        raise MemoryError(
            f"the {stop - start} vectors of {store.path} take {size:.3g} GiB, more than {device} has free: search on "
            'several devices, or on the CPU (device="cpu"), which holds none of them'
        ) from error
    for first_row, block in store.blocks(READ_ROWS, start, stop):
        vectors[first_row - start : first_row - start + len(block)] = torch.from_numpy(block)
    return vectors


def held_blocks(vectors: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """`(first row, (rows, dim))` over vectors in memory `(n, dim)`, without a copy, of the size their device likes."""
    rows = _pace(vectors.device).rows
    return zip(range(0, len(vectors), rows), vectors.split(rows), strict=True)


@torch.no_grad()
def nearest(
    queries: torch.Tensor, blocks: Iterable[tuple[int, torch.Tensor]], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k greatest inner products of every query with the rows of all blocks: exact, one pass, nothing sorted twice.

    Scores are float32 whatever the precision: products of float16 numbers are exact in float32 and are summed there.

    Args:
        queries: `(n, dim)`, float32 or in the precision of the blocks.
        blocks: `(first row, (rows, dim))`, on the device of the queries.
        k: length of the lists.

    Returns:
        scores `(n, k)` float32 and rows `(n, k)` int64, best first, of equal scores the lower row first. Of documents
        that tie for the last place any may be listed. Row -1 and score -inf fill up what the blocks are short of k.
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
    """Some scores of a block, among them the k greatest that could enter the lists, found without sorting the block.

    Columns are put into groups and only the groups' maxima, one read of the scores, are compared. The k greatest
    scores lie in the k groups with the greatest maxima: a group left out has k others whose maxima are no less than
    anything in it. Nor can a group enter a list whose maximum is not above the list's last score.

    Args:
        scores: `(n, rows)`.
        worst: `(n, 1)`, the last score of each list so far.
        k: length of the lists.

    Returns:
        scores `(n, c)` and their columns `(n, c)`, each column once.
    """
    n, rows = scores.shape
    size = 1 << math.isqrt(rows // k).bit_length()  # about as many groups as members of k of them: both are cheap
    groups = rows // size
    # Members of a group lie `groups` columns apart: the maxima of neighbouring groups are found side by side.
    maxima = scores[:, : size * groups].unflatten(1, (size, groups)).amax(1)
    hopeless = int((maxima <= worst).sum(1).min())
    chosen = maxima.topk(min(k, groups - hopeless), dim=1, sorted=False).indices
    members = (chosen[:, None] + groups * torch.arange(size, device=scores.device)[:, None]).flatten(1)
    ungrouped = torch.arange(size * groups, rows, device=scores.device).expand(n, -1)
    columns = torch.cat([members, ungrouped], dim=1)
    return scores.gather(1, columns), columns


def _pace(device: torch.device) -> Pace:
    return CPU_PACE if device.type == "cpu" else GPU_PACE
