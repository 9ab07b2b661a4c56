"""The encoder inside an anchored model gives the vectors of sentence-transformers, and the words they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from modeling_amer import AMERModel, QuestionEncoder
from modeling_amer.encoder_amer import like_lengths
from tests.conftest import DIM, build, save_tiny_encoder

QUESTIONS = [
    "bank",
    "a river, and a much longer question than the others? yes; it is",
    "???",
    "word " * 2000,
    "Zürich 東京",
]


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_vectors_are_those_of_sentence_transformers(tmp_path, pooling, prompt):
    folder = save_tiny_encoder(tmp_path, pooling)
    expected = SentenceTransformer(folder, device="cpu").encode(QUESTIONS, prompt=prompt)
    encoder = QuestionEncoder.from_identity({"name": "org/encoder", "query_prompt": prompt}, folder)
    assert encoder.pooling == pooling and encoder.max_length == 64
    np.testing.assert_allclose(encoder.encode(QUESTIONS, batch_size=2).numpy(), expected, atol=1e-5)


def test_a_bfloat16_model_reads_questions_in_bfloat16_and_a_float32_one_does_not(tmp_path):
    folder = save_tiny_encoder(tmp_path)
    model = AMERModel.from_scratch(DIM, layers=1, width=32, document_encoder={"name": folder})
    exact = model.document_encoder
    assert exact.model.dtype == torch.float32
    half = QuestionEncoder.from_identity({"name": folder}, dtype=torch.bfloat16)
    vectors = half.encode(QUESTIONS)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, exact.encode(QUESTIONS), atol=0.05, rtol=0)
    saved = tmp_path / "model"
    model.save_pretrained(saved)
    assert AMERModel.from_pretrained(saved, dtype=torch.bfloat16).document_encoder.model.dtype == torch.bfloat16


def test_the_mean_of_the_token_vectors_is_the_vector(tiny_encoder):
    encoder = QuestionEncoder.from_identity({"name": tiny_encoder, "query_prompt": "query: "})
    means = torch.stack([tokens.vectors.mean(dim=0) for tokens in encoder.encode_tokens(QUESTIONS, batch_size=2)])
    torch.testing.assert_close(means, encoder.encode(QUESTIONS), atol=1e-5, rtol=0)


def test_offsets_are_the_characters_of_the_question_whatever_the_prompt(tiny_encoder):
    question = "Two words?"
    for prompt in ("", "ask: "):
        encoder = QuestionEncoder.from_identity({"name": tiny_encoder, "query_prompt": prompt})
        (tokens,) = encoder.encode_tokens([question])
        pieces = [question[start:end] for start, end in tokens.offsets.tolist() if start < end]
        assert "".join(pieces) == "Twowords?" and len(pieces) == 9
        assert (tokens.words[tokens.offsets[:, 0] == tokens.offsets[:, 1]] == -1).all()
        assert len(tokens.words[tokens.words >= 0].unique()) == 3


def test_an_encoder_without_sentence_transformers_files_pools_the_mean(tmp_path):
    folder = save_tiny_encoder(tmp_path)
    for file in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (Path(folder) / file).unlink()
    (Path(folder) / "1_Pooling").rmdir()
    encoder = QuestionEncoder.from_identity({"name": folder})
    assert encoder.pooling == "mean" and encoder.max_length == 512


def test_token_anchors_on_an_encoder_that_does_not_pool_the_mean_are_refused(tmp_path):
    model = AMERModel.from_scratch(
        DIM, layers=1, width=32, document_encoder={"name": save_tiny_encoder(tmp_path, "cls")}
    )
    with pytest.raises(ValueError, match=r"pools by 'cls'.*anchor=\"vector\""):
        model.encode_query(["bank"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [{"type": "sentence_transformers.models.Dense", "path": ""}], "Dense"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by 'max_tokens'"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "pools by"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "leaves its prompt out"),
    ],
)
def test_an_encoder_that_would_give_other_vectors_is_refused(tmp_path, file, content, message):
    folder = save_tiny_encoder(tmp_path)
    (Path(folder) / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        QuestionEncoder.from_identity({"name": folder, "query_prompt": "query: "})


def test_a_missing_encoder_is_named(tmp_path):
    model = AMERModel.from_scratch(DIM, layers=1, width=32, document_encoder={"name": "org/nowhere"})
    model.document_encoder_path = str(tmp_path)
    with pytest.raises(OSError, match=r"'org/nowhere', which could not be loaded.*document_encoder_path"):
        model.encode_query(["bank"])


def test_a_model_that_names_no_encoder_says_so():
    model = AMERModel.from_scratch(DIM, layers=1, width=32)
    with pytest.raises(ValueError, match="names no document encoder"):
        model.attribute("bank")


def test_a_vector_anchored_model_makes_its_own_anchors(llama, tiny_encoder):
    model = build(llama, anchored=True, document_encoder={"name": tiny_encoder})
    vectors = normalize(torch.from_numpy(SentenceTransformer(tiny_encoder).encode(QUESTIONS[:3])), dim=-1)
    own = model.encode_query(QUESTIONS[:3])
    torch.testing.assert_close(own, model.encode_query(QUESTIONS[:3], input_vectors=vectors), atol=1e-5, rtol=0)


def test_the_encoder_is_no_part_of_the_model(tiny_encoder):
    model = AMERModel.from_scratch(DIM, layers=1, width=32, document_encoder={"name": tiny_encoder})
    names, count = set(model.state_dict()), model.num_parameters()
    model.encode_query(["bank"])
    assert set(model.state_dict()) == names and model.num_parameters() == count
    assert not any(parameter.requires_grad for parameter in model.document_encoder.model.parameters())
    assert not model.document_encoder.model.training


def test_batches_hold_texts_of_like_length_longest_first():
    lengths = [3, 90, 4, 88, 200, 3, 87]
    found = list(like_lengths(lengths, 4, torch.device("cpu")))
    assert found == [[4, 1], [3, 6, 2], [0, 5]]  # padding of 110, 1 + 84 and 0 tokens
    assert list(like_lengths(lengths, 2, torch.device("cpu"))) == [[4, 1], [3, 6], [2, 0], [5]]
    assert list(like_lengths(lengths, 99, torch.device("meta"))) == [[4, 1, 3, 6, 2, 0, 5]]
    assert list(like_lengths([], 4, torch.device("cpu"))) == []


def test_vectors_do_not_depend_on_what_else_is_asked(tiny_encoder):
    encoder = QuestionEncoder.from_identity({"name": tiny_encoder})
    texts = ["bank", "a river " * 60, "spring? " * 30, "a", "a, and a bank"]
    for batch_size in (1, 2, 64):
        for text, together in zip(texts, encoder.encode_tokens(texts, batch_size), strict=True):
            (alone,) = encoder.encode_tokens([text])
            torch.testing.assert_close(together.vectors, alone.vectors, atol=1e-5, rtol=0)
            assert torch.equal(together.offsets, alone.offsets) and torch.equal(together.words, alone.words)
