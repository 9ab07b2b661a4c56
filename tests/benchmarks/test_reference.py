"""The naive reference gives what our path gives, by the work it says it does."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch.nn.functional import normalize

from amer.trainer.losses import matched_info_nce
from amer.trainer.matching import match
from benchmarks.reference import Reference, info_nce, match_rows
from tests.conftest import DIM, build

TEXTS = ["bank", "a question that is quite a bit longer", "Harry Potter"]
M = 3


@pytest.fixture(scope="module")
def model(llama):
    return build(llama, num_query_vectors=M)


@pytest.fixture
def targets() -> dict[str, torch.Tensor]:
    """Three, two and one target among twenty candidates."""
    generator = torch.Generator().manual_seed(0)
    return {
        "candidates": normalize(torch.randn(20, DIM, generator=generator), dim=-1),
        "target_index": torch.tensor([[0, 1, 2], [3, 4, 0], [5, 0, 0]]),
        "target_mask": torch.tensor([[True, True, True], [True, True, False], [True, False, False]]),
    }


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_loss_and_gradients_are_those_of_our_path(model, targets, training):
    model.train(training)
    questions = model.tokenize(TEXTS)
    ours = matched_info_nce(model(**questions).query_embeddings, **targets)
    naive = info_nce(Reference(model)(**questions), **targets)
    torch.testing.assert_close(naive, ours, rtol=1e-5, atol=1e-6)
    expected = gradients(model, ours)
    for name, gradient in gradients(model, naive).items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_vectors_of_questions_one_at_a_time_are_those_of_a_batch(model):
    model.eval()
    torch.testing.assert_close(Reference(model).encode_query(TEXTS), model.encode_query(TEXTS), rtol=0, atol=1e-5)


def test_every_vector_of_every_question_costs_a_pass_of_the_language_model_and_the_lookup_one_more(model):
    model.eval()
    naive = Reference(model)
    with (
        patch.object(model.backbone, "forward", wraps=model.backbone.forward) as passes,
        patch.object(naive, "lm_head", wraps=naive.lm_head) as heads,
    ):
        naive.encode_query(TEXTS)
    lengths = [model.tokenize([text])["input_ids"].shape[1] for text in TEXTS]
    prefix = model.tokenize(TEXTS)["prefix_ids"].shape[1]
    read = [(1, prefix + length + fed, 16) for length in lengths for fed in (0, *range(M))]
    assert [tuple(call.kwargs["inputs_embeds"].shape) for call in passes.call_args_list] == read
    assert [tuple(call.args[0].shape) for call in heads.call_args_list] == read


def test_rows_matched_one_by_one_cost_as_little_as_those_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(50, 5, 5, generator=generator)
    mask = torch.arange(5) < torch.randint(1, 6, (50, 1), generator=generator)

    def total(assignment: torch.Tensor) -> torch.Tensor:
        return (costs.gather(2, assignment[:, :, None]).squeeze(2) * mask).sum(dim=1)

    torch.testing.assert_close(total(match_rows(costs, mask)), total(match(costs, mask)))
