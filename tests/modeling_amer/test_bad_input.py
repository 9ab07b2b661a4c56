"""What a model refuses, and how."""

from __future__ import annotations

import pytest
import torch

from modeling_amer import AMERConfig
from tests.conftest import DIM, build


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_query_vectors": 0}, "num_query_vectors must be an integer of at least 1"),
        ({"document_dim": -3}, "document_dim must be an integer of at least 1"),
        ({"weights": "some"}, '"adapter" or "full"'),
        ({"weights": "adapter"}, "needs a `lora` dictionary"),
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
        ({"texts": ["x"], "query_vectors": torch.zeros(1, DIM + 1)}, rf"\(1, {DIM + 1}\), expected \(batch, {DIM}\)"),
        ({"texts": ["x"], "query_vectors": torch.zeros(2, DIM)}, "1 texts were given with 2 query_vectors"),
        ({"texts": ["x"], "query_vectors": torch.full((1, DIM), torch.nan)}, "NaN"),
    ],
)
def test_encode_query_refuses(llama, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(llama).encode_query(**arguments)


def test_an_anchored_model_asks_for_its_query_vectors(llama):
    with pytest.raises(ValueError, match=r"pass query_vectors .*amer\.retrieval\.Searcher"):
        build(llama, anchored=True).encode_query(["x"])


def test_a_vector_model_has_no_tokenizer(llama):
    with pytest.raises(ValueError, match="vectors only"):
        build(llama, reads_text=False).encode_query(["x"])
