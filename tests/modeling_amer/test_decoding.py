"""Cached, batched, prefix-sharing decoding gives what a plain recompute of each question gives."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch.nn.functional import normalize

from tests.conftest import DIM, build, save_tiny_base

QUESTIONS = ["bank", "a much longer question", "spring?"]


# Hidden states of 16 are divided by their length, sqrt(16).
def recompute(model, texts, input_vectors=None, m=3, teacher=None, teacher_mask=None):
    """The algorithm as the paper states it: one question at a time, the whole sequence read again for each vector."""
    rows = []
    for i, text in enumerate(texts):
        ids = model.tokenizer(model.config.prompt_template.replace("{query}", text), add_special_tokens=False)
        parts = [model.get_input_embeddings()(torch.tensor([ids["input_ids"]]))]
        anchor = 0
        if input_vectors is not None:
            parts.append(model.input_projection(input_vectors[i : i + 1])[:, None])
            anchor = normalize(input_vectors[i : i + 1], dim=-1)
        outputs = []
        for step in range(m):
            hidden = model.backbone(inputs_embeds=torch.cat(parts, 1), use_cache=False).last_hidden_state[:, -1] / 4
            outputs.append(normalize(model.output_projection(hidden) + anchor, dim=-1))
            fed = outputs[-1].detach()  # paper: "the input from the predicted vector"; no gradient through it
            if teacher is not None and teacher_mask[i, step]:
                fed = teacher[i : i + 1, step]
            parts.append(model.input_projection(fed)[:, None])
        rows.append(torch.cat(outputs))
    return torch.stack(rows)


@contextmanager
def checkpointing(model, active):
    """Gradient checkpointing as the Trainer turns it on, and off again."""
    if active:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    yield
    model.gradient_checkpointing_disable()


def gradients(model, output):
    model.zero_grad()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    (output * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_cached_decoding_equals_plain_recompute_in_output_and_gradient(base, anchored, checkpointed):
    model = build(base, anchored=anchored).train()
    torch.nn.init.normal_(model.output_projection.weight, std=0.3)
    generator = torch.Generator().manual_seed(3)
    teacher = normalize(torch.randn(3, 3, DIM, generator=generator), dim=-1)
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    vectors = torch.randn(3, DIM, generator=generator) if anchored else None
    with checkpointing(model, checkpointed):
        fast = model(
            **model.tokenize(QUESTIONS), input_vectors=vectors, teacher_vectors=teacher, teacher_mask=mask
        ).query_embeddings
        fast_gradients = gradients(model, fast)
    slow = recompute(model, QUESTIONS, vectors, teacher=teacher, teacher_mask=mask)
    slow_gradients = gradients(model, slow)
    torch.testing.assert_close(fast, slow, atol=5e-6, rtol=0)
    assert fast_gradients.keys() == slow_gradients.keys()
    assert any("lora_A" in name for name in slow_gradients)
    for name, gradient in slow_gradients.items():
        difference = (fast_gradients[name] - gradient).abs().max()
        assert difference <= 2e-5 * max(1, gradient.abs().max()), name


def test_teacher_forcing_feeds_every_teacher_vector_and_no_teacher_feeds_predictions(base):
    model = build(base).eval()
    batch = model.tokenize(QUESTIONS)
    teacher = normalize(torch.randn(3, 3, DIM, generator=torch.Generator().manual_seed(4)), dim=-1)
    always = torch.ones(3, 3, dtype=torch.bool)
    with torch.no_grad():
        forced = model(**batch, teacher_vectors=teacher).query_embeddings
        torch.testing.assert_close(forced, recompute(model, QUESTIONS, teacher=teacher, teacher_mask=always))
        free = model(**batch, teacher_vectors=teacher, teacher_mask=~always).query_embeddings
        torch.testing.assert_close(free, model(**batch).query_embeddings, atol=0, rtol=0)
        torch.testing.assert_close(free, recompute(model, QUESTIONS))
    assert (forced[:, 1] - free[:, 1]).abs().max() > 1e-3  # the teacher is heard
    assert torch.equal(forced[:, 0], free[:, 0])  # and not before it speaks


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("teacher", ["none", "some", "all"])
def test_training_and_inference_emit_the_same_vectors(llama, checkpointed, teacher):
    model = build(llama)
    batch = model.tokenize(QUESTIONS)
    if teacher != "none":
        batch["teacher_vectors"] = normalize(torch.randn(3, 4, DIM), dim=-1)
    if teacher == "some":
        batch["teacher_mask"] = torch.rand(3, 4) < 0.5
    for m in (1, 2, 4):
        with checkpointing(model, checkpointed):
            trained = model.train()(**batch, num_query_vectors=m).query_embeddings
        expected = model.eval()(**batch, num_query_vectors=m).query_embeddings
        torch.testing.assert_close(trained, expected)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_autocast_loses_no_gradient_to_the_roll_out(llama, checkpointed):
    """Weights cast where there is no gradient stay in autocast's cache, and would be used again where there is one."""
    model = build(llama).train()
    with checkpointing(model, checkpointed), torch.autocast("cpu", torch.bfloat16):
        output = model(**model.tokenize(QUESTIONS)).query_embeddings
        half = gradients(model, output)
    exact = gradients(model, model(**model.tokenize(QUESTIONS)).query_embeddings)
    assert half.keys() == exact.keys()
    together = [torch.cat([found[name].flatten() for name in exact]) for found in (half, exact)]
    assert torch.cosine_similarity(*together, dim=0) > 0.9


@pytest.mark.parametrize("window", [12, 60])
def test_a_sliding_window_sees_no_padding(tmp_path, window):
    """The window of Mistral's layers counts positions, and padding between prompt and question would fill it."""
    base = save_tiny_base(tmp_path / "mistral", "mistral", sliding_window=window)
    model = build(base).eval()
    together = model.encode_query(QUESTIONS)
    for question, expected in zip(QUESTIONS, together, strict=True):
        torch.testing.assert_close(model.encode_query(question), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(together, recompute(model, QUESTIONS), atol=1e-5, rtol=0)
    with checkpointing(model.train(), True), torch.no_grad():
        torch.testing.assert_close(model(**model.tokenize(QUESTIONS)).query_embeddings, together, atol=1e-5, rtol=0)


def test_one_long_question_costs_the_others_no_padding(llama, monkeypatch):
    monkeypatch.setattr("modeling_amer.encoding_amer.TOKENISED_BATCHES", 2)
    model = build(llama)
    questions = ["x" * n for n in (3, 90, 4, 2, 5, 3, 2, 4)]
    read = []
    original = model.forward
    monkeypatch.setattr(model, "forward", lambda **batch: read.append(batch["input_ids"].shape) or original(**batch))
    together = model.encode_query(questions, batch_size=2)
    assert [rows for rows, _ in read] == [2, 2, 2, 2] and read[0][1] > 90 > 30 > read[1][1]
    monkeypatch.undo()
    torch.testing.assert_close(together, model.encode_query(questions, batch_size=8), atol=1e-5, rtol=0)


def test_vector_questions_enter_through_the_input_projection_as_the_first_position(llama):
    model = build(llama, reads_text=False, lora=None).eval()
    vectors = torch.randn(4, DIM, generator=torch.Generator().manual_seed(6)) * 3
    with torch.no_grad():
        parts, outputs = [model.input_projection(vectors)[:, None]], []
        for _ in range(3):
            hidden = model.backbone(inputs_embeds=torch.cat(parts, 1)).last_hidden_state[:, -1] / 4
            outputs.append(normalize(model.output_projection(hidden), dim=-1))
            parts.append(model.input_projection(outputs[-1])[:, None])
        torch.testing.assert_close(model(input_vectors=vectors).query_embeddings, torch.stack(outputs, 1))
        torch.testing.assert_close(
            model.encode_query(input_vectors=vectors.numpy(), batch_size=3), torch.stack(outputs, 1)
        )


def test_untrained_anchored_model_is_the_document_encoder(base):
    model = build(base, anchored=True)
    vectors = torch.randn(3, DIM)
    encoded = model.encode_query(QUESTIONS, input_vectors=vectors)
    expected = normalize(vectors, dim=-1)[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(encoded, expected)


def test_encode_query_keeps_the_order_and_does_not_depend_on_the_batch(base):
    model = build(base).train()
    questions = ["x" * n for n in (9, 1, 30, 4, 17, 2)]
    alone = torch.stack([model.encode_query(question, num_query_vectors=2) for question in questions])
    for batch_size in (1, 2, 6, 64):
        together = model.encode_query(questions, num_query_vectors=2, batch_size=batch_size)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert together.shape == (6, 2, DIM) and together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(6, 2))
    assert model.training  # and leaves the mode as it was


def test_the_first_vectors_do_not_depend_on_how_many_follow(base):
    model = build(base)
    torch.testing.assert_close(
        model.encode_query(QUESTIONS, num_query_vectors=5)[:, :2], model.encode_query(QUESTIONS, num_query_vectors=2)
    )
