"""The time of one question by step: encoder, query vectors, search, texts; CPU milliseconds, the fastest of many.

For a decoder, it also measures the cost of reading the prompt at each call. For every precision, it measures the
distance of the query vectors from those in float32. Without `--model`, the model is an untrained anchored
SmolLM2-135M, which is as fast as a trained one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Row, run
from service import questions_of, save_untrained

from amer.corpus import DocumentStore
from amer.search import ExactIndex, Searcher

OPTIONS = {
    "model": (str, "a trained model's folder"),
    "store": (Path, "a document store's folder", {"required": True}),
    "questions": (Path, "a split of a dataset, as Parquet; default: the beginnings of documents"),
    "dtypes": (["float32", "bfloat16"], "precisions of the model"),
    "vectors": ([1, 5], "m, query vectors of each question, if the model does not choose"),
    "batch": (32, "questions to ask together as well"),
    "rounds": (20, "rounds of each measurement"),
    "k": (10, "documents per question"),
}


def fastest(function: Callable[[], Any], rounds: int) -> float:
    """CPU milliseconds of all threads; the minimum of some rounds, which other load on the machine affects least."""
    function()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return 1_000 * min(found)


def ask(searcher: Searcher, questions: list[str], m: int | None, arguments: argparse.Namespace) -> Row:
    """Measure the first question and a batch of questions with m query vectors; m is None if the model chooses."""
    model, rounds, k = searcher.model, arguments.rounds, arguments.k
    one, batch = questions[:1], questions[: arguments.batch]
    encoder = model.document_encoder.encode if model.config.token_vectors else searcher.encoder.encode_queries

    def encode(texts: list[str]) -> Any:
        return searcher.encode(texts, m, len(texts))

    def encode_anew() -> None:
        model._prompt_cache.drop()
        encode(one)

    found, vectors = searcher.search_rows(one, k, m), encode(one)
    from_disk = ExactIndex(searcher.store, held_bytes=0)
    return {
        "m": m or "auto",
        "encoder ms": fastest(lambda: encoder(one), rounds),
        "query vectors ms": fastest(lambda: encode(one), rounds),
        "prompt anew ms": fastest(encode_anew, rounds),
        f"{len(batch)} together ms": fastest(lambda: encode(batch), max(1, rounds // 5)),
        "search ms": fastest(lambda: searcher.index.search(vectors, k), rounds),
        "search from disk ms": fastest(lambda: from_disk.search(vectors, k), rounds),
        "texts ms": fastest(lambda: searcher._hits(found), rounds),
        "all ms": fastest(lambda: searcher.search(one, k, m), rounds),
    }


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure every precision."""
    store = DocumentStore.open(arguments.store)
    questions = questions_of(store, arguments)
    few = questions[: arguments.batch]
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or save_untrained(store, Path(folder) / "model")
        exact: dict[Any, torch.Tensor] = {}
        for dtype in arguments.dtypes:
            searcher = Searcher.from_pretrained(model, store, device=arguments.device, dtype=dtype)
            for m in [None] if searcher.model.config.chooses_number else arguments.vectors:
                row = {"dtype": dtype, **ask(searcher, questions, m, arguments)}
                vectors = torch.as_tensor(searcher.encode(few, m, len(few)))
                compared = exact.setdefault(m, vectors)
                if compared.shape == vectors.shape:  # a question may have another number of parts in another precision
                    cosines = torch.cosine_similarity(vectors, compared, dim=-1)[compared.any(dim=-1)]
                    row |= {"lowest cosine": float(cosines.min()), "mean cosine": float(cosines.mean())}
                yield row


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
