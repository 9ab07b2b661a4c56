"""The precision of a model is an option of opening a searcher, and keeps what is found."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus import write_store
from amer.search import Searcher
from modeling_amer import AMERModel
from tests.conftest import DIM, build, build_mini, save_tiny_encoder

QUESTIONS = ["bank", "a much longer question", "spring?"]


@pytest.fixture(scope="module")
def folders(llama, tmp_path_factory):
    """A saved decoder with LoRA, a saved mini model that splits questions, and a store of both."""
    root = tmp_path_factory.mktemp("precision")
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
def test_in_bfloat16_vectors_and_documents_stay_close(folders, kind):
    plain = Searcher.from_pretrained(folders / kind, folders / "store", device="cpu")
    half = Searcher.from_pretrained(folders / kind, folders / "store", device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16 and half.model.output_projection.weight.dtype == torch.float32
    expected, found = (one.model.encode_query(QUESTIONS, 1) for one in (plain, half))
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert torch.cosine_similarity(found, expected, dim=-1).min() > 0.97
    if kind == "mini":
        assert {weight.dtype for weight in half.model.part_labeller.parameters()} == {torch.float32}
        assert half.model.document_encoder.model.dtype == torch.bfloat16
    assert [hit.id for hit in half.search("bank", k=1)[0]] == [hit.id for hit in plain.search("bank", k=1)[0]]


def test_lora_is_merged_in_float32_and_kept_apart_in_bfloat16(folders):
    apart = AMERModel.from_pretrained(folders / "decoder")
    merged = Searcher.from_pretrained(folders / "decoder", folders / "store", device="cpu").model
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(merged.encode_query(QUESTIONS), apart.encode_query(QUESTIONS), atol=1e-4, rtol=0)
    half = Searcher.from_pretrained(folders / "decoder", folders / "store", device="cpu", dtype="bfloat16").model
    assert [name for name, _ in half.named_parameters() if "lora" in name]


def test_auto_is_the_faster_precision_of_the_machine(folders, monkeypatch):
    for native in ("bfloat16", "float32"):
        monkeypatch.setattr("amer.machine.native_dtype", lambda device, native=native: native)
        opened = Searcher.from_pretrained(folders / "mini", folders / "store", device="cpu", dtype="auto")
        assert opened.model.dtype == getattr(torch, native)


def test_other_precisions_and_models_that_are_open_are_refused(folders):
    with pytest.raises(ValueError, match="dtype must be auto or one of float32, bfloat16, float16, got 'int4'"):
        Searcher.from_pretrained(folders / "decoder", folders / "store", device="cpu", dtype="int4")
    opened = Searcher.from_pretrained(folders / "mini", folders / "store", device="cpu")
    with pytest.raises(ValueError, match="pass the model's folder"):
        Searcher.from_pretrained(opened.model, opened.store, device="cpu", dtype="bfloat16")
