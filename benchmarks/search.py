"""Exact search of random unit vectors: AMER's, plain `matmul` and `topk`, and FAISS flat by hand.

The corpus is float16. On the CPU, AMER keeps small stores in memory as float32 ("held") and reads larger ones from
disk at every search; both are measured. On a GPU, the corpus is made in device memory and every system reads it there.
The same run measures the ceilings (matrix products, copies).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Clock, console, matmul_rate, measure, read_arguments, report, store_without_texts, timed
from torch.nn.functional import normalize

from amer.search import ExactIndex
from amer.search.index import exact

BLOCK_ROWS = 65_536  # block size of the plain search, and of making vectors
CHECKED = 32  # query vectors to search in float32 as well, for the recall


OPTIONS = {
    "rows": (117_659, "documents"),
    "dim": (384, "dimension of the vectors"),
    "queries": (200, "questions per search"),
    "vectors": (5, "m, query vectors of each question"),
    "k": (100, "documents listed for each query vector"),
    "faiss": (False, "on a GPU, measure FAISS too; it needs a second copy of the corpus"),
}


def random_vectors(rows: int, dim: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Draw `(rows, dim)` unit vectors on the device, block by block."""
    vectors = torch.empty(rows, dim, dtype=dtype, device=device)
    for block in vectors.split(BLOCK_ROWS):
        block.copy_(normalize(torch.randn(block.shape, device=device), dim=1))
    return vectors


def plain_search(queries: torch.Tensor, corpus: torch.Tensor, k: int) -> torch.Tensor:
    """Search with matmul and topk, block by block, in the precision of the queries: rows `(n, k)`."""
    scores, rows = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, device=queries.device).long()
    for number, block in enumerate(corpus.split(BLOCK_ROWS)):
        found, columns = (queries @ block.to(queries.dtype).T).topk(min(k, len(block)))
        scores, order = torch.cat([scores, found], dim=1).topk(min(k, scores.shape[1] + found.shape[1]))
        rows = torch.cat([rows, columns + number * BLOCK_ROWS], dim=1).gather(1, order)
    return rows


def systems(
    queries: torch.Tensor, corpus: torch.Tensor, arguments: argparse.Namespace, folder: str
) -> dict[str, Callable[[], torch.Tensor]]:
    """The systems to compare: functions without arguments that return the rows `(n, k)`."""
    k, found = arguments.k, {}
    if corpus.is_cuda:
        rounded = queries.to(corpus.dtype)
        found["matmul, topk"] = lambda: plain_search(rounded, corpus, k)
        if arguments.faiss:
            flat_on_gpu = faiss_gpu_index(corpus)
            found["FAISS flat"] = lambda: torch.from_numpy(flat_on_gpu.search(queries.cpu().numpy(), k)[1]).cuda()
        found["AMER, held"] = lambda: exact.nearest(rounded, exact.held_blocks(corpus), k)[1]
        return found
    found["matmul, topk"] = lambda: plain_search(queries, corpus, k)
    if flat := faiss_index(corpus):
        found["FAISS flat"] = lambda: torch.from_numpy(flat.search(queries.numpy(), k)[1])
    store = store_without_texts(Path(folder) / "store", len(corpus), corpus.numpy())
    grouped = queries.view(arguments.queries, arguments.vectors, -1)
    held, from_disk = ExactIndex(store, held_bytes=2**62), ExactIndex(store, held_bytes=0)
    found["AMER, held"] = lambda: torch.from_numpy(held.search(grouped, k)[0]).flatten(0, 1)
    found["AMER, from disk"] = lambda: torch.from_numpy(from_disk.search(grouped, k)[0]).flatten(0, 1)
    return found


def faiss_index(corpus: torch.Tensor) -> Any | None:
    """Make a flat index of FAISS; if FAISS is not installed, print that and return None."""
    try:
        import faiss
    except ImportError:
        console.print("FAISS is not installed: its row is left out")
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(corpus.shape[1])
    flat.add(corpus.float().numpy())
    return flat


def faiss_gpu_index(corpus: torch.Tensor) -> Any:
    """Make a flat index of FAISS on the GPU, in float16 like the corpus."""
    import faiss

    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    flat = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), corpus.shape[1], config)
    for block in corpus.split(BLOCK_ROWS):
        flat.add(block.float().cpu().numpy())
    return flat


def copy_rate(device: str) -> float:
    """The other ceiling: bytes read and written per second by copies of a large tensor, the best of five."""
    source = torch.ones(2**30 if device.startswith("cuda") else 2**24, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(timed(lambda: target.copy_(source), repeats=5, warm_up=1))


def compare(
    queries: torch.Tensor, corpus: torch.Tensor, floor: float, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row per system; the ratio is to the first."""
    expected = plain_search(queries[:CHECKED], corpus, arguments.k)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, search in systems(queries, corpus, arguments, folder).items():
            figures = measure(
                lambda clock, search=search: in_phase(clock, search),
                lambda _: [(exact, "_inner_products", "products"), (exact, "_candidates", "selection")],
                arguments,
            )
            listed = search()[:CHECKED]
            recall = (expected[:, :, None] == listed[:, None, :]).any(dim=2).double().mean().item()
            if not figures["peak MB"]:
                del figures["peak MB"]  # torch does not see the memory of FAISS
            rows.append({"system": name, "vectors/s": len(queries) / figures["seconds"], **figures})
            rows[-1] |= {"of the ceiling": floor / figures["seconds"], "recall": recall}
            rows[-1]["ratio"] = rows[0]["seconds"] / figures["seconds"]
    return rows


def in_phase(clock: Clock, search: Callable[[], torch.Tensor]) -> None:
    """Run a search; everything except the watched functions counts as "rest"."""
    with clock.phase("rest"):
        search()


def main() -> None:
    """Measure the ceilings, then every system."""
    arguments = read_arguments(__file__, __doc__, OPTIONS)
    device, count = arguments.device, arguments.queries * arguments.vectors
    flops = matmul_rate(device, torch.float16 if device.startswith("cuda") else torch.float32)
    bandwidth = copy_rate(device)
    corpus = random_vectors(arguments.rows, arguments.dim, device, torch.float16)
    queries = random_vectors(count, arguments.dim, device, torch.float32)
    floors = {"products": 2 * count * corpus.numel() / flops, "one read of the corpus": corpus.nbytes / bandwidth}
    rows = compare(queries, corpus, max(floors.values()), arguments)
    report(arguments, rows, matmul_flops=flops, copy_bytes_per_second=bandwidth, floor_seconds=floors)


if __name__ == "__main__":
    main()
