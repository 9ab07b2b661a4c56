"""One training step, ours beside the naive reference: forward, loss with matching, backward, AdamW.

Every prediction is fed back, which is the most that scheduled sampling can ask for. The learning rate is zero: a step
costs what it costs, and the weights stay, so that all steps are of the same model and should give the same loss.
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
    "batches": ([8, 32], "questions of a step"),
    "variants": (["plain"], "of our step", {"choices": ("plain", "recorded", "checkpointing", "compiled")}),
    "reference_batch": (512, "the reference's at most, where memory ends"),
    "reference_repeats": (1, "measured runs of the reference"),
}


class Step:
    """A training step on a batch of questions; `loss` is that of the last one."""

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
        """Emit query vectors, score them by the objective, and learn from it."""
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
        """What is reported of a system that made this step."""
        batch = len(self.questions["input_ids"])
        return {"system": system, "batch": batch, **figures, "GFLOP": flops / 1e9, "loss": self.loss}


def measure_reference(step: Step, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of the naive step."""
    naive = reference.Reference(step.model)

    def watches(clock: Clock) -> Watches:
        return [*watch_reference(naive, clock), (reference, "match_rows", "matching")]

    def run(clock: Clock) -> None:
        step(naive, reference.info_nce, clock)

    flops = count_flops(run)  # which warms up
    figures = measure(run, watches, arguments, warm_up=0, repeats=arguments.reference_repeats)
    return step.row("reference", flops, figures)


def measure_ours(step: Step, variant: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of our step."""

    def run(clock: Clock) -> None:
        step(lambda **questions: step.model(**questions).query_embeddings, losses.matched_info_nce, clock)

    def watches(_: Clock) -> Watches:
        return [*watch_model(step.model), (losses, "match", "matching")]

    flops = count_flops(run)  # of the plain step: what a variant does again is no achievement
    with variant_of(step.model, variant):
        figures = measure(run, watches, arguments, warm_up=3 if variant == "compiled" else 1)
    return step.row(f"AMER, {variant}", flops, figures)


@contextmanager
def variant_of(model: AMERModel, variant: str) -> Iterator[None]:
    """Inside, the model records its decoding, checkpoints gradients, or is compiled, or is as it is.

    Recorded is the other way of scheduled sampling: predictions are fed back with gradient, step after step. Compiled
    are feed-forward parts and norms, once for all layers; attention would be compiled anew for every layer, since each
    has its own place in the cache.
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
    """The reference's row and one for each variant of ours, on the same questions."""
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
