"""Encoding of questions: `AMERModel.encode_query` in batches, compared with the naive reference, one by one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Clock, Watches, count_flops, measure, read_arguments, report
from reference import Reference
from workload import (
    MODEL_OPTIONS,
    add_ratios,
    autocast,
    build_model,
    ceiling,
    forward_flops,
    least_tokens,
    make_questions,
    watch_model,
    watch_reference,
)

from modeling_amer import AMERModel

OPTIONS = {
    **MODEL_OPTIONS,
    "questions": (64, "number of questions to encode"),
    "batches": ([16, 64], "batch sizes of AMER"),
    "reference_questions": (16, "most questions that the reference encodes"),
    "reference_repeats": (1, "measured runs of the reference"),
}


def compare(model: AMERModel, kind: str, arguments: argparse.Namespace, rate: float) -> list[dict[str, Any]]:
    """The row of the reference, and one per batch size of AMER, on the same questions."""
    texts = make_questions(model, arguments.questions, kind, arguments, vary=True)
    few, naive = texts[: arguments.reference_questions], Reference(model)
    figures = measure_encoding(
        lambda: naive.encode_query(few),
        lambda clock: watch_reference(naive, clock),
        arguments,
        warm_up=0,
        repeats=arguments.reference_repeats,
    )
    rows = [{"system": "reference, one at a time", "questions": len(few), **figures}]
    floor = forward_flops(model, least_tokens(model.tokenize(texts), arguments.num_query_vectors)) / rate
    for batch in arguments.batches:
        encode = partial(model.encode_query, texts, batch_size=batch)
        figures = measure_encoding(encode, lambda _: watch_model(model), arguments)
        rows.append({"system": f"AMER, batch {batch}", "questions": len(texts), **figures, "floor seconds": floor})
    expected = naive.encode_query(few[:8])
    rows[-1]["largest difference"] = (model.encode_query(texts)[: len(expected)] - expected).abs().max().item()
    return [{"inputs": kind, **row} for row in add_ratios(rows, "questions", rate)]


def measure_encoding(
    encode: Callable[[], torch.Tensor], watches: Callable[[Clock], Watches], arguments: argparse.Namespace, **how: int
) -> dict[str, Any]:
    """Measure one way to encode."""

    def run(clock: Clock) -> None:
        with clock.phase("rest"), autocast(arguments):
            encode()

    flops = count_flops(run)  # also warms up
    return {**measure(run, watches, arguments, **how), "GFLOP": flops / 1e9}


def main() -> None:
    """Measure every kind of input."""
    arguments = read_arguments(__file__, __doc__, OPTIONS)
    model = build_model(arguments).eval()
    rate = ceiling(arguments)
    rows = [row for kind in arguments.inputs for row in compare(model, kind, arguments, rate)]
    report(arguments, rows, matmul_flops=rate)


if __name__ == "__main__":
    main()
