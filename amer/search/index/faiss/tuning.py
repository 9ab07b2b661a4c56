"""Find the cheapest search setting that reaches a recall, measured against exact search of the same store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from amer.corpus.store import DocumentStore
from amer.search.index.base import flat_queries
from amer.search.index.exact import CPU_PACE, nearest
from amer.search.index.faiss.building import sample_rows

SAMPLE = 500  # random documents whose vectors are the tuning queries
CANDIDATES = (1, 2, 4, 10, 20)  # numbers of candidates to re-score, as multiples of k
REFINEMENTS = 3  # bisections of the width, between a value and its double


class Setting(NamedTuple):
    """Search setting of an index.

    Attributes:
        width: `nprobe` or `efSearch`. None if the index has neither.
        candidates: Number of candidates to re-score, as a multiple of k. 0 if the index's scores are exact.
    """

    width: int | None = None
    candidates: int = 0


class Truth(NamedTuple):
    """Queries and the results of exact search.

    Attributes:
        queries: `(n, dim)` float32.
        own: `(n,)` int64, the document whose vector a query is, which is left out of the results; -1 for none.
        rows: `(n, k)` int64, padded with -1.
    """

    queries: torch.Tensor
    own: torch.Tensor
    rows: torch.Tensor


class Tuned(NamedTuple):
    """The cheapest setting found, and its measured recall."""

    setting: Setting
    recall: float


EXACT = Tuned(Setting(), 1.0)


def exact_truth(store: DocumentStore, queries: np.ndarray | None, k: int, seed: int, show_progress_bar: bool) -> Truth:
    """Search exactly for the given queries, or for the vectors of random documents.

    Raises:
        ValueError: The queries have a wrong shape or dimension, or hold NaN.
    """
    if queries is None:
        rows_of_sample = sample_rows(store, SAMPLE, seed)
        vectors, own = torch.from_numpy(store.vectors(rows_of_sample)), torch.from_numpy(rows_of_sample)
    else:
        if np.ndim(queries) != 2 or not len(queries):
            raise ValueError(f"queries must be (n, {store.dim}) with n at least 1, got {np.shape(queries)}")
        vectors = flat_queries(np.asarray(queries)[:, None], store.dim, k)[1]
        own = torch.full((len(vectors),), -1)
    _, rows = nearest(vectors, _blocks(store, show_progress_bar), k + 1)
    return Truth(vectors, own, without(rows, own))


def without(rows: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Remove one document `(n,)` from each list `(n, k + 1)`, and cut the lists to k."""
    order = ((rows == own[:, None]) & (rows >= 0)).to(torch.int8).sort(dim=1, stable=True).indices
    return rows.gather(1, order)[:, :-1]


def recall_of(found: torch.Tensor, truth: Truth) -> float:
    """Return the share of the true neighbours in lists `(n, k + 1)`, without each query's own document."""
    wanted = truth.rows >= 0
    listed = (truth.rows[:, :, None] == without(found, truth.own)[:, None, :]).any(dim=2)
    return float((listed & wanted).sum() / wanted.sum().clamp(min=1)) if wanted.any() else 1.0


def tune(
    measure: Callable[[Setting], float],
    cost: Callable[[Setting], float],
    recall: float,
    widths: tuple[int, int] | None,
    rescored: bool,
) -> Tuned:
    """Find the cheapest setting that reaches a recall.

    Args:
        measure: Returns the recall of a setting. It must not fall when the setting grows.
        cost: Returns the cost of a setting, in any unit.
        recall: Recall to reach, 0 to 1.
        widths: The least and the greatest width. None if the index has no width.
        rescored: Whether candidates are re-scored, so that their number must be found too.

    Raises:
        ValueError: No setting reaches the recall. The message gives the best recall and what to change.
    """
    best, reached = None, 0.0
    for candidates in CANDIDATES if rescored else (0,):
        failed = 0
        for width in _doubled(widths):
            setting = Setting(width, candidates)
            if best is not None and cost(setting) >= cost(best.setting):
                break
            found = Tuned(setting, measure(setting))
            reached = max(reached, found.recall)
            if found.recall >= recall:
                best = _refined(measure, recall, failed, found) if failed else found
                break
            failed = width or 0
    if best is None:
        raise ValueError(
            f"recall {recall} is out of reach, the index reaches {reached:.4f}: ask for a lower recall, or build an "
            'index with longer codes or whole vectors, such as "hnsw" or "flat", in another folder; this one is kept'
        )
    return best


def _doubled(widths: tuple[int, int] | None) -> Iterator[int | None]:
    """Yield widths from the least to the greatest, each twice the previous one."""
    if widths is None:
        yield None
        return
    width, most = widths
    while width < most:
        yield width
        width *= 2
    yield most


def _refined(measure: Callable[[Setting], float], recall: float, failed: int, found: Tuned) -> Tuned:
    """Bisect between a width that failed and the width of `found`, which reached the recall."""
    enough = found.setting.width or 0
    for _ in range(REFINEMENTS):
        width = (failed + enough) // 2
        if width == failed:
            break
        setting = found.setting._replace(width=width)
        measured = measure(setting)
        if measured >= recall:
            found, enough = Tuned(setting, measured), width
        else:
            failed = width
    return found


def _blocks(store: DocumentStore, show_progress_bar: bool) -> Iterator[tuple[int, torch.Tensor]]:
    with tqdm(total=len(store), desc="Exact search", unit="document", disable=not show_progress_bar) as progress:
        for first_row, block in store.blocks(CPU_PACE.rows):
            yield first_row, torch.from_numpy(block)
            progress.update(len(block))
