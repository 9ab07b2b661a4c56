"""One training step of AMER and of the naive reference: forward, loss with matching, backward, AdamW.

Every prediction is fed back, the most expensive case of scheduled sampling. The learning rate is zero: a step costs
the same, but the weights do not change, so all steps should give the same loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import reference
import torch
from common import Clock, Watches, count_flops, measure, read_arguments, report
from workload import (
    MODEL_OPTIONS,
    add_ratios,
    autocast,
    build_model,
    ceiling,
    forward_flops,
    least_tokens,
    make_questions,
    make_targets,
    training_flops,
    watch_model,
    watch_reference,
)

from amer.trainer import losses
from modeling_amer import AMERModel

OPTIONS = {
    **MODEL_OPTIONS,
    "batches": ([8, 32], "questions per step"),
    "variants": (
        ["plain"],
        "variants of AMER's step",
        {"choices": ("plain", "recorded", "checkpointing", "compiled")},
    ),
    "reference_batch": (512, "largest batch of the reference, limited by memory"),
    "reference_repeats": (1, "measured runs of the reference"),
}


class Step:
    """A training step on a batch of questions; `loss` is the loss of the last step."""

    def __init__(self, model: AMERModel, texts: list[str], arguments: argparse.Namespace) -> None:
        self.model = model
        self.arguments = arguments
        self.questions = {name: ids.to(model.device) for name, ids in model.tokenize(texts).items()}
        self.targets = make_targets(len(texts), arguments)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.98), fused=True)
        self.loss = 0.0

    def __call__(
        self, emit: Callable[..., torch.Tensor], objective: Callable[..., torch.Tensor], clock: Clock
    ) -> None:
        """Emit query vectors, compute the loss, and update the weights."""
        with autocast(self.arguments):
            with clock.phase("rest of forward"):
                vectors = emit(**self.questions)
            with clock.phase("loss"):
                loss = objective(vectors, **self.targets)
        with clock.phase("backward"):
            loss.backward()
        with clock.phase("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.loss = loss.item()

    def row(self, system: str, flops: int, figures: dict[str, Any]) -> dict[str, Any]:
        """The report row of a system that made this step."""
        batch = len(self.questions["input_ids"])
        return {"system": system, "batch": batch, **figures, "GFLOP": flops / 1e9, "loss": self.loss}


def measure_reference(step: Step, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the naive step."""
    naive = reference.Reference(step.model)

    def watches(clock: Clock) -> Watches:
        return [*watch_reference(naive, clock), (reference, "match_rows", "matching")]

    def run(clock: Clock) -> None:
        step(naive, reference.info_nce, clock)

    flops = count_flops(run)  # also warms up
    figures = measure(run, watches, arguments, warm_up=0, repeats=arguments.reference_repeats)
    return step.row("reference", flops, figures)


def measure_ours(step: Step, variant: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure AMER's step."""

    def run(clock: Clock) -> None:
        step(lambda **questions: step.model(**questions).query_embeddings, losses.matched_info_nce, clock)

    def watches(_: Clock) -> Watches:
        return [*watch_model(step.model), (losses, "match", "matching")]

    flops = count_flops(run)  # of the plain step, so that work that a variant repeats does not count as useful
    with variant_of(step.model, variant):
        figures = measure(run, watches, arguments, warm_up=3 if variant == "compiled" else 1)
    return step.row(f"AMER, {variant}", flops, figures)


@contextmanager
def variant_of(model: AMERModel, variant: str) -> Iterator[None]:
    """Inside, the model records its decoding, checkpoints gradients, is compiled, or is plain.

    "recorded" is the other form of scheduled sampling: predictions are fed back with gradient, step after step.
    "compiled" compiles the feed-forward parts and norms once for all layers. It leaves out attention, which would
    compile again for every layer, since each has its own place in the cache.
    """
    children = (child for layer in model.backbone.layers for child in layer.named_children())
    parts = [part for name, part in children if name != "self_attn"]
    if variant == "recorded":
        model._roll_out = model._decode
    if variant == "checkpointing":
        model.gradient_checkpointing_enable()
    if variant == "compiled":
        for part in parts:
            part.compile(dynamic=True)
    try:
        yield
    finally:
        vars(model).pop("_roll_out", None)
        if variant == "checkpointing":
            model.gradient_checkpointing_disable()
        for part in parts:
            part._compiled_call_impl = None


def compare(model: AMERModel, kind: str, batch: int, arguments: argparse.Namespace, rate: float) -> list[dict]:
    """The row of the reference, and one per variant of AMER, on the same questions."""
    texts = make_questions(model, batch, kind, arguments)
    rows = [measure_reference(Step(model, texts[: arguments.reference_batch], arguments), arguments)]
    step = Step(model, texts, arguments)
    rows += [measure_ours(step, variant, arguments) for variant in arguments.variants]
    fed = batch * (arguments.num_query_vectors - 1)
    tokens = least_tokens(step.questions, arguments.num_query_vectors)
    for row in rows[1:]:
        prefill = row["seconds"] * row["phases"]["prefill"]
        row["prefill's share of ceiling"] = forward_flops(model, tokens - fed) / prefill / rate
        row["floor seconds"] = training_flops(model, tokens) / rate
    return [{"inputs": kind, **row} for row in add_ratios(rows, "batch", rate)]


def main() -> None:
    """Measure every kind of input and every batch size."""
    arguments = read_arguments(__file__, __doc__, OPTIONS)
    model = build_model(arguments).train()
    rate = ceiling(arguments)
    cases = product(arguments.inputs, arguments.batches)
    rows = [row for kind, batch in cases for row in compare(model, kind, batch, arguments, rate)]
    report(arguments, rows, matmul_flops=rate)


if __name__ == "__main__":
    main()
