"""The prompt is read once and kept: the same vectors for fewer tokens, and never those of other weights."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from modeling_amer import AMERModel
from tests.conftest import LORA, build

QUESTIONS = ["bank", "a much longer question", "spring?"]


@pytest.fixture
def read(monkeypatch):
    """Call it with a model: the numbers of tokens that its decoder reads from then on."""

    def watch(model):
        tokens = []
        forward = model.backbone.forward
        monkeypatch.setattr(
            model.backbone,
            "forward",
            lambda **inputs: tokens.append(inputs["inputs_embeds"].shape[:2].numel()) or forward(**inputs),
        )
        return tokens

    return watch


def anew(model, texts=QUESTIONS, **options):
    """The vectors where nothing is kept."""
    model._prompt_cache.drop()
    return model.encode_query(texts, **options)


@pytest.mark.parametrize("m", [1, 5])
@pytest.mark.parametrize("emission", ["autoregressive", "one_pass"])
def test_the_prompt_is_read_once_and_the_vectors_stay_the_same(base, read, m, emission):
    model = build(base, emission=emission, max_query_vectors=5).eval()
    prompt = model.tokenize(QUESTIONS)["prefix_ids"].numel()
    tokens = read(model)
    first = model.encode_query(QUESTIONS, m)
    read_first = sum(tokens)
    tokens.clear()
    again = model.encode_query(QUESTIONS, m)
    assert read_first - sum(tokens) == prompt > 10
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    alone = torch.stack([model.encode_query(question, m) for question in QUESTIONS])
    torch.testing.assert_close(alone, first, atol=2e-5, rtol=0)  # batches differ, prompt kept or not
    with torch.enable_grad():
        plain = model(**model.tokenize(QUESTIONS), num_query_vectors=m).query_embeddings
    torch.testing.assert_close(plain, first, atol=2e-5, rtol=0)


def test_another_prompt_takes_the_place_of_the_first(llama):
    model = build(llama).eval()
    before = model.encode_query(QUESTIONS)
    model.config.prompt_template = "another " + model.config.prompt_template
    other = model.encode_query(QUESTIONS)
    assert (other - before).abs().max() > 1e-3
    torch.testing.assert_close(other, anew(model), atol=0, rtol=0)


def _step(model):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with torch.enable_grad():
        model(**model.tokenize(QUESTIONS)).query_embeddings[:, 0].sum().backward()
    optimizer.step()


def _load(model):
    model.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})


def _half(model):
    model.to(torch.bfloat16)


def _data(model):
    for parameter in model.backbone.parameters():
        parameter.data = parameter.data + 0.01


def _data_in_training_mode(model):
    model.train()
    for parameter in model.backbone.parameters():
        parameter.data.add_(0.01)  # not counted by torch
    model.eval()


def _disable_adapters(model):
    for module in model.backbone.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(False)


def _scale(model):
    for module in model.backbone.modules():
        if isinstance(module, BaseTunerLayer):
            module.scaling["default"] = 3.0


@pytest.mark.parametrize("change", [_step, _load, _half, _data, _data_in_training_mode, _disable_adapters, _scale])
def test_the_kept_prompt_is_dropped_with_what_it_depends_on(base, change):
    model = build(base).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    before = model.encode_query(QUESTIONS)
    change(model)
    changed = model.encode_query(QUESTIONS)
    assert (changed - before).abs().max() > 1e-4
    torch.testing.assert_close(changed, anew(model), atol=0, rtol=0)


def test_merging_and_another_attention_read_the_prompt_again(llama, read):
    model = build(llama).eval()
    prompt = model.tokenize(["bank"])["prefix_ids"].numel()
    before = model.encode_query(QUESTIONS)
    tokens = read(model)
    for change in (lambda: model.set_attn_implementation("eager"), model.merge_and_unload):
        change()
        tokens.clear()
        torch.testing.assert_close(model.encode_query(QUESTIONS), before, atol=1e-5, rtol=0)
        assert tokens[0] == prompt


def test_nothing_is_kept_where_gradients_or_autocast_differ(llama):
    model = build(llama).eval()
    exact = model.encode_query(QUESTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.encode_query(QUESTIONS)
        torch.testing.assert_close(half, anew(model), atol=0, rtol=0)
    torch.testing.assert_close(model.encode_query(QUESTIONS), exact, atol=0, rtol=0)
    model(**model.tokenize(QUESTIONS))  # records gradients
    assert model._prompt_cache._kept is None


def test_a_copy_of_the_model_keeps_a_prompt_of_its_own(llama):
    model = build(llama).eval()
    before = model.encode_query(QUESTIONS)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.backbone.parameters():
            parameter.mul_(1.1)
    changed = twin.encode_query(QUESTIONS)
    assert (changed - before).abs().max() > 1e-4
    torch.testing.assert_close(changed, anew(twin), atol=0, rtol=0)
    torch.testing.assert_close(model.encode_query(QUESTIONS), before, atol=0, rtol=0)


def test_weights_of_inference_mode_are_never_kept(llama):
    with torch.inference_mode():
        model = build(llama).eval()
        before = model.encode_query(QUESTIONS)
        for parameter in model.backbone.parameters():
            parameter.mul_(1.1)
        changed = model.encode_query(QUESTIONS)
        assert (changed - before).abs().max() > 1e-4
        torch.testing.assert_close(changed, anew(model), atol=0, rtol=0)


@pytest.mark.slow
def test_the_real_pair_gives_the_same_vectors(smollm2):
    torch.manual_seed(0)
    model = AMERModel.from_base(smollm2, document_dim=384, num_query_vectors=5, lora=LORA)
    for m in (1, 5):
        first = anew(model, num_query_vectors=m)
        torch.testing.assert_close(model.encode_query(QUESTIONS, m), first, atol=0, rtol=0)
        with torch.enable_grad():
            plain = model(**model.tokenize(QUESTIONS), num_query_vectors=m).query_embeddings
        torch.testing.assert_close(plain, first, atol=1e-5, rtol=0)
