"""Search a document store by inner product: exactly in torch, or with a flat FAISS index."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from amer.retrieval.store import DocumentStore

READ_ROWS = 65_536  # store rows read at a time, to be held


class Index(Protocol):
    """What a searcher asks of an index."""

    store: DocumentStore

    def search(self, query_embeddings: np.ndarray | torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(q, m, dim)` -> rows `(q, m, k)` int64 and scores `(q, m, k)` float32, best first."""


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


class ExactIndex:
    """Exact search in torch.

    On the CPU every search reads the memory-mapped store block by block and keeps nothing of it. A GPU (or another
    device) holds all vectors from the beginning, in the store's own precision: `2 * n * dim` bytes of float16. Query
    vectors are then rounded to that precision too, which changes a few in 10,000 of the top 100, all close to the last
    place, and scores by less than 1e-4; products are exact and summed in float32.

    Attributes:
        store: what is searched.
        device: where.
        dtype: what the inner products are of: float32 on the CPU, on another device the store's.
    """

    def __init__(self, store: DocumentStore, device: str | torch.device = "cpu") -> None:
        """Load the vectors, unless the device is the CPU.

        Raises:
            MemoryError: they do not fit the device.
        """
        self.store = store
        self.device = torch.device(device)
        self.dtype = torch.float32
        self._vectors: torch.Tensor | None = None
        if self.device.type != "cpu":
            self._vectors = load_vectors(store, self.device)
            self.dtype = self._vectors.dtype

    def search(self, query_embeddings: np.ndarray | torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest documents of every query vector; all vectors of a call share each pass over the store.

        Args:
            query_embeddings: `(q, m, dim)`.
            k: length of each list; where the store has fewer documents, row -1 and score -inf fill up.

        Returns:
            rows `(q, m, k)` int64 and scores `(q, m, k)` float32, best first, of equal scores the lower row first.

        Raises:
            ValueError: another shape or dim, NaN or infinite values, k < 1.
        """
        shape, vectors = _flat_queries(query_embeddings, self.store.dim, k, self.dtype)
        scores, rows = nearest(vectors.to(self.device), self._blocks(), k)
        return rows.cpu().numpy().reshape(shape), scores.cpu().numpy().reshape(shape)

    def _blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        if self._vectors is not None:
            return held_blocks(self._vectors)
        return ((first_row, torch.from_numpy(block)) for first_row, block in self.store.blocks(CPU_PACE.rows))


def load_vectors(store: DocumentStore, device: torch.device) -> torch.Tensor:
    """All vectors of a store on a device, `(n, dim)` in the store's precision.

    Raises:
        MemoryError: they do not fit.
    """
    shape, dtype = (len(store), store.dim), getattr(torch, store.dtype)
    try:
        vectors = torch.empty(shape, dtype=dtype, device=device)
    except torch.OutOfMemoryError as error:
        size = len(store) * store.dim * dtype.itemsize / 2**30
        raise MemoryError(
            f"the {len(store)} vectors of {store.path} take {size:.3g} GiB, more than {device} has free: "
            'search on the CPU (device="cpu"), which holds none of them'
        ) from error
    for first_row, block in store.blocks(READ_ROWS):
        vectors[first_row : first_row + len(block)] = torch.from_numpy(block)
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


class FaissIndex:
    """A flat inner-product index of FAISS, in memory: `4 * n * dim` bytes."""

    def __init__(self, store: DocumentStore) -> None:
        """Copy the store's vectors into the index.

        Raises:
            ImportError: FAISS is not installed.
        """
        self.store = store
        self._index: Any = _import_faiss().IndexFlatIP(store.dim)
        for _, block in store.blocks(READ_ROWS):
            self._index.add(block.astype(np.float32, copy=False))

    def search(self, query_embeddings: np.ndarray | torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactIndex.search`."""
        shape, vectors = _flat_queries(query_embeddings, self.store.dim, k)
        scores, rows = self._index.search(vectors.numpy(), k)
        scores[rows < 0] = -np.inf  # FAISS pads with the lowest float
        return rows.reshape(shape), scores.reshape(shape)


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("FaissIndex needs FAISS: install faiss-cpu or faiss-gpu, or use ExactIndex") from error
    return faiss


def _flat_queries(
    query_embeddings: np.ndarray | torch.Tensor, dim: int, k: int, dtype: torch.dtype = torch.float32
) -> tuple[tuple[int, int, int], torch.Tensor]:
    """The shape of the answer and the contiguous `(q * m, dim)` vectors in the precision they are searched with."""
    queries = torch.as_tensor(query_embeddings).detach().to("cpu", dtype)
    if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != dim:
        raise ValueError(f"query_embeddings must be (q, m, {dim}) with m at least 1, got {tuple(queries.shape)}")
    if not torch.isfinite(queries).all():
        raise ValueError(
            f"query_embeddings hold NaN, infinite values or values beyond {dtype}: the model that made them is broken"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (queries.shape[0], queries.shape[1], k), queries.reshape(-1, dim).contiguous()
