"""Weights in 8 bits and other precisions are options of opening a searcher, and keep what is found."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus import write_store
from amer.search import Searcher
from amer.search.quantization import Int8Linear
from tests.conftest import DIM, build, build_mini, save_tiny_encoder

QUESTIONS = ["bank", "a much longer question", "spring?"]


def test_a_layer_is_close_to_its_float():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32)
    linear.weight.data[3] = 0  # no scale of its own
    inputs = torch.randn(2, 5, 64)
    expected, found = linear(inputs), Int8Linear(linear)(inputs)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert 1e-5 < (found - expected).abs().max() < 0.03 * expected.abs().max()
    with torch.no_grad():
        torch.testing.assert_close(Int8Linear(linear)(inputs[:0]), expected[:0])


@pytest.fixture(scope="module")
def folders(llama, tmp_path_factory):
    """A saved decoder with LoRA, a saved mini model that splits questions, and a store of both."""
    root = tmp_path_factory.mktemp("quantized")
    encoder = {"name": save_tiny_encoder(root / "encoder")}
    build(llama, document_encoder=encoder).save_pretrained(root / "decoder")
    mini = build_mini(encoder["name"], splits_questions=True, stop_score=False, emission="autoregressive")
    mini.save_pretrained(root / "mini")
    names = [f"d{row}" for row in range(30)]
    vectors = np.random.default_rng(0).normal(size=(30, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_store(root / "store", pa.table({"id": names, "title": names, "text": names}), vectors, encoder, "float32")
    return root


@pytest.mark.parametrize("kind", ["decoder", "mini"])
@pytest.mark.parametrize("options", [{"quantize": "int8"}, {"dtype": torch.bfloat16}])
def test_vectors_and_documents_stay_close(folders, kind, options):
    plain = Searcher.from_pretrained(folders / kind, folders / "store", device="cpu")
    small = Searcher.from_pretrained(folders / kind, folders / "store", device="cpu", **options)
    expected, found = (one.model.encode_query(QUESTIONS, 1) for one in (plain, small))
    assert not torch.equal(found, expected)
    assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.97
    linears = [type(module) for module in small.model.backbone.modules() if isinstance(module, torch.nn.Linear)]
    assert bool(linears) == ("dtype" in options)
    if kind == "mini":
        assert small.model.document_encoder.model.dtype == options.get("dtype", torch.float32)
    torch.testing.assert_close(small.model.encode_query(QUESTIONS, 1), found, atol=0, rtol=0)
    assert [hit.id for hit in small.search("bank", k=1)[0]] == [hit.id for hit in plain.search("bank", k=1)[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "dtype must be auto or one of float32, bfloat16, float16, got 'int4'"),
        ({"quantize": "int4"}, 'quantize must be "int8"'),
        ({"quantize": "int8", "dtype": "bfloat16"}, "leave out dtype"),
    ],
)
def test_what_there_is_not_is_refused(folders, options, message):
    with pytest.raises(ValueError, match=message):
        Searcher.from_pretrained(folders / "decoder", folders / "store", device="cpu", **options)


def test_an_opened_model_stays_as_it_is(folders):
    opened = Searcher.from_pretrained(folders / "mini", folders / "store", device="cpu")
    with pytest.raises(ValueError, match="pass the model's folder"):
        Searcher.from_pretrained(opened.model, opened.store, device="cpu", quantize="int8")
