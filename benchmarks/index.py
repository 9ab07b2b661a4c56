"""FAISS through AMER and by hand, with the same index and parameters, and the share of fusion in the time.

Both answer the same questions in turns. The measure is CPU time of all threads: run it with OMP_NUM_THREADS=1. The
search by hand re-scores in NumPy from vectors in memory. Without a store the corpus is synthetic: unit vectors around
random centres, and questions near some of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import console, read_arguments, report, store_without_texts

from amer.corpus import DocumentStore
from amer.search import FaissIndex, round_robin

BLOCK = 2**16
DOCUMENTS_OF_A_CENTRE = 250
SPREAD = 0.8  # distance of a document from its centre
NOISE = 0.3  # distance of a query vector from its document
GATHERED = 16  # queries to re-score together by hand


OPTIONS = {
    "store": (Path, "a document store; default: synthetic vectors"),
    "rows": (1_000_000, "documents of the synthetic store"),
    "dim": (384, "dimension of the synthetic vectors"),
    "queries": (1000, "questions per search"),
    "vectors": (5, "m, query vectors of each question"),
    "k": (100, "documents listed for each query vector"),
    "recall": (0.95, "recall to tune the indexes to"),
    "indexes": (["flat", "ivfpq", "hnsw"], "presets, or factory strings"),
    "folder": (Path, "folder that keeps the indexes; default: a temporary folder"),
}


def near(vectors: np.ndarray, length: float, generator: np.random.Generator) -> np.ndarray:
    """Draw unit vectors in random directions from `vectors (..., dim)`, at about the distance `length`."""
    moved = vectors + length / vectors.shape[-1] ** 0.5 * generator.standard_normal(vectors.shape, dtype=np.float32)
    return moved / np.linalg.norm(moved, axis=-1, keepdims=True)


def synthetic_store(path: Path, rows: int, dim: int, generator: np.random.Generator) -> DocumentStore:
    """Make a store of vectors around centres, without texts."""
    count = -(-rows // DOCUMENTS_OF_A_CENTRE)
    centres = near(np.zeros((count, dim), dtype=np.float32), 1.0, generator)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, BLOCK):
            chosen = generator.integers(0, count, min(BLOCK, rows - start))
            yield near(centres[chosen], SPREAD, generator)

    return store_without_texts(path, rows, blocks())


def by_hand(store: DocumentStore, folder: Path, setting: Any, k: int) -> Callable[[np.ndarray], Any]:
    """Return a function that searches with FAISS directly, with the parameters found by tuning."""
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    if setting.width is not None:
        name = "nprobe" if faiss.try_extract_index_ivf(index) is not None else "efSearch"
        faiss.ParameterSpace().set_index_parameter(index, name, setting.width)
    if not setting.candidates:
        return lambda queries: index.search(queries, k)
    corpus = np.concatenate([block for _, block in store.blocks(BLOCK)])

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, candidates = index.search(queries, k * setting.candidates)
        scores, rows = (np.empty((len(queries), k), dtype=dtype) for dtype in (np.float32, np.int64))
        for start in range(0, len(queries), GATHERED):
            part = slice(start, start + GATHERED)
            found = np.matmul(corpus[candidates[part]].astype(np.float32), queries[part, :, None])[..., 0]
            order = np.argsort(-found, axis=1)[:, :k]
            scores[part] = np.take_along_axis(found, order, axis=1)
            rows[part] = np.take_along_axis(candidates[part], order, axis=1)
        return scores, rows

    return search


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU seconds of one call, in all threads of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(store: DocumentStore, name: str, folder: Path, queries: np.ndarray, args: argparse.Namespace) -> dict:
    """Build one index, then search in turns with AMER and by hand, and fuse."""
    start = time.perf_counter()
    index = FaissIndex.build(store, folder, name, args.recall, args.k, seed=args.seed)
    built = time.perf_counter() - start
    hand, flat = by_hand(store, folder, index.setting, args.k), queries.reshape(-1, store.dim)
    ours, theirs = [], []
    for repeat in range(args.repeats + 1):
        seconds = cpu_seconds(lambda: index.search(queries, args.k)), cpu_seconds(lambda: hand(flat))
        if repeat:  # the first repeat warms up
            ours.append(seconds[0])
            theirs.append(seconds[1])
    rows, scores = index.search(queries, args.k)
    same = (rows.reshape(-1, args.k)[:, :, None] == hand(flat)[1][:, None, : args.k]).any(axis=2).mean()
    fusion = statistics.median(cpu_seconds(lambda: round_robin(rows, scores, args.k)) for _ in range(args.repeats))
    search = statistics.median(ours)
    return {
        "index": index.info["factory"],
        "documents": len(store),
        "build s": built,
        "bytes/vector": index.info["bytes"] / len(store),
        "recall": index.recall,
        "width": index.setting.width,
        "candidates": index.setting.candidates * args.k,
        "CPU ms/vector": 1e3 * search / len(flat),
        "by hand, CPU ms/vector": 1e3 * statistics.median(theirs) / len(flat),
        "ours / by hand": statistics.median(one / other for one, other in zip(ours, theirs, strict=True)),
        "rows like by hand": float(same),
        "fusion's share": fusion / (search + fusion),
    }


def main() -> None:
    """Measure every index on one corpus."""
    args = read_arguments(__file__, __doc__, OPTIONS)
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    generator = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if args.store:
            store = DocumentStore.open(args.store)
        elif (folder / "store").is_dir():
            store = DocumentStore.open(folder / "store")
        else:
            store = synthetic_store(folder / "store", args.rows, args.dim, generator)
        chosen = generator.integers(0, len(store), (args.queries, args.vectors))
        queries = near(store.vectors(chosen), NOISE, generator)
        rows = []
        for name in args.indexes:
            rows.append(measure(store, name, folder / name.replace(",", "-"), queries, args))
            console.print(rows[-1])
        report(args, rows)


if __name__ == "__main__":
    main()
