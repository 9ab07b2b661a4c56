"""Token vectors on disk are those of the encoder, and an interrupted cache goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amer.data import token_cache
from amer.data.token_cache import TokenCache, TokenDataset
from modeling_amer import QuestionEncoder

QUESTIONS = [f"question {'x' * length}?" for length in range(7)]


@pytest.fixture
def encoder(tiny_encoder) -> QuestionEncoder:
    return QuestionEncoder.from_identity({"name": tiny_encoder})


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(token_cache, "QUESTIONS_A_FILE", 3)


def test_a_cache_holds_what_the_encoder_gives(encoder, tmp_path):
    cache = TokenCache.build(tmp_path, encoder, QUESTIONS, batch_size=2)
    assert len(cache) == len(QUESTIONS)
    for found, expected in zip(cache, encoder.encode_tokens(QUESTIONS), strict=True):
        assert found.vectors.dtype == torch.float16
        torch.testing.assert_close(found.vectors.float(), expected.vectors, atol=5e-3, rtol=1e-2)
        assert torch.equal(found.offsets, expected.offsets) and torch.equal(found.words, expected.words)
    assert torch.equal(cache[-1].vectors, cache[6].vectors)
    with pytest.raises(IndexError):
        cache[7]


def test_an_interrupted_cache_keeps_what_is_done(encoder, tmp_path, monkeypatch):
    calls = []

    def encode(questions, batch_size):
        calls.append(list(questions))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return QuestionEncoder.encode_tokens(encoder, questions, batch_size)

    monkeypatch.setattr(encoder, "encode_tokens", encode)
    with pytest.raises(KeyboardInterrupt):
        TokenCache.build(tmp_path, encoder, QUESTIONS)
    with pytest.raises(FileNotFoundError):
        TokenCache(tmp_path)
    TokenCache.build(tmp_path, encoder, QUESTIONS)
    assert calls == [QUESTIONS[:3], QUESTIONS[3:6], QUESTIONS[3:6], QUESTIONS[6:]]
    TokenCache.build(tmp_path, encoder, QUESTIONS)
    assert len(calls) == 4


def test_a_cache_of_other_questions_is_refused(encoder, tmp_path):
    TokenCache.build(tmp_path, encoder, QUESTIONS)
    with pytest.raises(ValueError, match="other questions"):
        TokenCache.build(tmp_path, encoder, QUESTIONS[:6])


@pytest.mark.parametrize("field", ["name", "revision", "query_prompt", "max_length", "dtype"])
def test_a_cache_of_another_encoder_is_refused(tiny_encoder, tmp_path, field):
    TokenCache.build(tmp_path / "cache", QuestionEncoder.from_identity({"name": tiny_encoder}), QUESTIONS)
    identity = {"name": tiny_encoder, **({field: "other"} if field in ("revision", "query_prompt") else {})}
    dtype = torch.bfloat16 if field == "dtype" else None
    other = QuestionEncoder.from_identity(identity, tiny_encoder, dtype)
    if field in ("name", "max_length"):
        setattr(other, field, {"name": "other", "max_length": 4}[field])
    with pytest.raises(ValueError, match="another encoder"):
        TokenCache.build(tmp_path / "cache", other, QUESTIONS)


def test_a_cache_of_another_split_is_refused(encoder, tmp_path):
    cache = TokenCache.build(tmp_path, encoder, QUESTIONS)
    with pytest.raises(ValueError, match="5 questions, the cache 7"):
        TokenDataset(np.arange(5), cache)
