"""Encoding of documents: `DocumentEncoder` in both precisions beside sentence-transformers' own loop in float32.

The systems take turns. The measure is CPU time, since other work on the machine hardly affects it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import run
from sentence_transformers import SentenceTransformer

from amer.corpus import DocumentEncoder
from amer.offline import MINILM, resolve_model

OPTIONS = {
    "documents": ("data/documents.parquet", "the corpus"),
    "questions": ("", "a split of questions, to measure the loss of recall by precision"),
    "encoder": (MINILM, "a sentence-transformers model"),
    "limit": (2_048, "number of documents, drawn at random"),
    "batch_size": (256, "documents at a time, at most"),
    "k": (10, "number of documents to search per question"),
}


def compare(arguments: Any) -> Iterator[dict[str, Any]]:
    """Yield one row per system; the first is the reference."""
    table = pq.read_table(arguments.documents, columns=["id", "title", "text"])
    rows = np.random.default_rng(arguments.seed).permutation(len(table))[: arguments.limit]
    records = table.take(rows).to_pylist()
    plain = SentenceTransformer(resolve_model(arguments.encoder), device=arguments.device)
    texts = [f"{record['title']} {record['text']}".strip() for record in records]
    plain.encode(texts[:8])  # reads the weights; ours are read on loading
    tokens = sum(map(len, plain.tokenizer(texts, truncation=True, max_length=plain.max_seq_length)["input_ids"]))
    systems: dict[str, Callable[[], np.ndarray]] = {
        "sentence-transformers, float32": lambda: plain.encode(
            texts, batch_size=arguments.batch_size, normalize_embeddings=True
        )
    }
    for dtype in ("float32", "bfloat16"):
        encoder = DocumentEncoder.from_identity({"name": arguments.encoder}, arguments.device, dtype=dtype)
        systems[f"AMER, {dtype}"] = lambda encoder=encoder: encoder.encode_documents(records, arguments.batch_size)  # type: ignore[misc]
    figures, vectors = take_turns(systems, arguments.repeats)
    exact, first = vectors[next(iter(systems))], figures[next(iter(systems))]
    for system, (wall, processor) in figures.items():
        yield {
            "system": system,
            "documents": len(texts),
            "seconds": wall,
            "CPU seconds": processor,
            "documents a CPU second": len(texts) / processor,
            "tokens a CPU second": tokens / processor,
            "ratio": first[1] / processor,
            "ratio of wall time": first[0] / wall,
            "lowest cosine": float((exact * vectors[system]).sum(axis=1).min()),
            **recall(vectors[system], [record["id"] for record in records], plain, arguments),
        }


def take_turns(
    systems: dict[str, Callable[[], np.ndarray]], repeats: int
) -> tuple[dict[str, tuple[float, float]], dict[str, np.ndarray]]:
    """Call every system once per round; return the medians of seconds and CPU seconds, and the vectors of each."""
    spent: dict[str, list[tuple[float, float]]] = {system: [] for system in systems}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for system, encode in systems.items():
            wall, processor = time.perf_counter(), time.process_time()
            vectors[system] = encode()
            spent[system].append((time.perf_counter() - wall, time.process_time() - processor))
    medians = {
        system: (statistics.median(wall for wall, _ in pairs), statistics.median(processor for _, processor in pairs))
        for system, pairs in spent.items()
    }
    return medians, vectors


def recall(vectors: np.ndarray, ids: list[str], plain: SentenceTransformer, arguments: Any) -> dict[str, float]:
    """The share of questions that find their first target in the top k, among questions whose first target is here."""
    if not arguments.questions:
        return {}
    split = pq.read_table(arguments.questions, columns=["query", "targets"]).to_pylist()
    places = {document: row for row, document in enumerate(ids)}
    asked = [(line["query"], places[line["targets"][0][0]]) for line in split if line["targets"][0][0] in places]
    questions = plain.encode([query for query, _ in asked], normalize_embeddings=True)
    scores = questions @ vectors.T
    targets = np.array([row for _, row in asked])
    better = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return {f"Recall@{arguments.k}": float((better < arguments.k).mean())}


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, compare)
