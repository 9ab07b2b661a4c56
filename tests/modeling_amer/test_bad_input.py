"""What a model refuses, and how."""

from __future__ import annotations

import pytest
import torch

from modeling_amer import AMERConfig, AMERModel
from tests.conftest import DIM, build


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_query_vectors": 0}, "num_query_vectors must be an integer of at least 1"),
        ({"document_dim": -3}, "document_dim must be an integer of at least 1"),
        ({"weights": "some"}, '"adapter" or "full"'),
        ({"weights": "adapter"}, "needs a `lora` dictionary"),
        ({"lora": {"r": 4}}, "needs a `lora` dictionary"),
        ({"objective": "ordered"}, "matched, mixture; got 'ordered'"),
        ({"prompt_template": "no place"}, "exactly once"),
        ({"prompt_template": "{query} {query}"}, "exactly once"),
    ],
)
def test_config_refuses(field, message):
    with pytest.raises(ValueError, match=message):
        AMERConfig(**field)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ["x"], "num_query_vectors": 0}, "at least 1"),
        ({"texts": []}, "No questions"),
        ({}, "No question was given"),
        ({"texts": [" "]}, "Question 0 is empty"),
        ({"texts": ["x"], "batch_size": -1}, "batch_size must be at least 1"),
        ({"texts": ["x"], "input_vectors": torch.ones(1, DIM)}, "not anchored"),
    ],
)
def test_encode_query_refuses(llama, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(llama).encode_query(**arguments)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.ones(1, DIM + 1), rf"\(1, {DIM + 1}\), expected \(batch, {DIM}\)"),
        (torch.ones(2, DIM), "1 texts were given with 2 input_vectors"),
        (torch.full((1, DIM), torch.nan), "NaN"),
        (torch.zeros(1, DIM), "zero vector"),
    ],
)
def test_an_anchored_model_refuses_vectors_that_cannot_be(llama, vectors, message):
    model = build(llama, anchored=True).train()
    with pytest.raises(ValueError, match=message):
        model.encode_query(["x"], input_vectors=vectors)
    assert model.training  # as it was


def test_padding_on_the_right_is_refused(llama):
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(ValueError, match="pad on the left"):
        build(llama)(input_ids=ids, attention_mask=torch.tensor([[1, 1, 0]]))


def test_an_anchored_model_asks_for_its_query_vectors(llama):
    with pytest.raises(ValueError, match=r"pass input_vectors .*amer\.search\.Searcher"):
        build(llama, anchored=True).encode_query(["x"])


def test_a_vector_model_has_no_tokenizer(llama):
    model = build(llama, reads_text=False)
    with pytest.raises(ValueError, match="vectors only"):
        model.encode_query(["x"])
    with pytest.raises(ValueError, match="vectors only"):
        model(input_ids=torch.tensor([[1]]), input_vectors=torch.ones(1, DIM))


def test_misspelt_arguments_are_refused_by_name(llama, tmp_path):
    model = build(llama)
    batch = model.tokenize(["bank"])
    with pytest.raises(TypeError, match=r"forward\(\) has no argument query_vectors, teacher_vector"):
        model(**batch, teacher_vector=torch.ones(1, 2, DIM), query_vectors=None)
    with pytest.raises(TypeError, match="output_hidden_states"):
        model(**batch, output_hidden_states=True)
    with pytest.raises(TypeError, match="input_vector"):
        model.encode_query(["bank"], input_vector=torch.ones(1, DIM))
    with pytest.raises(TypeError, match="max_shards, variant"):
        model.save_pretrained(tmp_path / "model", max_shards=2, variant="fp16")
    with pytest.raises(TypeError, match="commit_mesage"):
        model.save_pretrained(tmp_path / "model", push_to_hub=True, commit_mesage="x")
    with pytest.raises(TypeError, match="commit_mesage"):
        model.push_to_hub("org/name", commit_mesage="x")
    with pytest.raises(ValueError, match="safe_serialization"):
        model.save_pretrained(tmp_path / "model", safe_serialization=False)
    assert not (tmp_path / "model").exists()
    with pytest.raises(TypeError, match="anchord"):
        AMERModel.from_base(llama, document_dim=DIM, anchord=True)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(TypeError, match="num_querys"):
        AMERModel.from_pretrained(tmp_path / "model", num_querys=2)


def test_what_libraries_pass_to_every_model_is_taken(llama, tmp_path):
    model = build(llama)
    batch = model.tokenize(["bank"])
    expected = model(**batch).query_embeddings
    same = model(**batch, num_items_in_batch=torch.tensor(3), return_loss=True, task="query").query_embeddings
    assert torch.equal(same, expected)
    model.save_pretrained(tmp_path, save_function=torch.save, safe_serialization=True, token=None)
    assert (tmp_path / "model.safetensors").is_file() and not list(tmp_path.glob("*.bin"))


def test_a_model_that_cannot_be_reached_is_named():
    with pytest.raises(OSError, match="nope"):
        AMERModel.from_pretrained("nope")
    with pytest.raises(OSError, match="nosuch/nope"):
        AMERModel.from_pretrained("nosuch/nope")
