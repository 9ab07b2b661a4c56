from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus import write_store
from amer.data import RetrievalDataset
from amer.evaluation import (
    SystemResult,
    evaluate_embeddings,
    evaluate_model,
    evaluate_run,
    mrecall_at_k,
    paired_bootstrap,
    recall_at_k,
    summarise,
)
from amer.search import ExactIndex
from modeling_amer import AMERConfig

ENCODER = {"name": "axes"}
DIM = 6


@pytest.fixture
def index(tmp_path) -> ExactIndex:
    """Documents d0 ... d5 on the axes."""
    ids = [f"d{row}" for row in range(DIM)]
    documents = pa.table({"id": ids, "title": [""] * DIM, "text": ids})
    return ExactIndex(write_store(tmp_path / "store", documents, np.eye(DIM, dtype=np.float32), ENCODER))


DATASET = RetrievalDataset(
    query_ids=["a", "b"], queries=["a", "b"], targets=[[["d0"], ["d1"]], [["d2"], ["d3"]]], answers=[[], []]
)


class Model:
    """Query vector i of question a is axis i, of question b axis 2 + 2 i."""

    def __init__(self, reads_text: bool = True, reads_vectors: bool = False, encoder: dict | None = None) -> None:
        self.config = AMERConfig(
            document_dim=DIM,
            document_encoder=encoder or ENCODER,
            prompt_template="{query}" if reads_text else None,
            anchor="vector" if reads_vectors else None,
        )

    def encode_query(self, texts, input_vectors, num_query_vectors, batch_size, show_progress_bar) -> torch.Tensor:
        self.inputs = (texts, input_vectors)
        axes = torch.tensor([[0, 1], [2, 4]])[:, :num_query_vectors]
        return torch.eye(DIM)[axes]


def test_a_run_has_every_metric_at_every_cut_off():
    rows, targets = np.array([[0, 5, 1], [4, 2, -1]]), [[[0], [1]], [[2, 3]]]
    values = evaluate_run(rows, targets, ks=(1, 3))
    assert list(values) == ["recall@1", "mrecall@1", "recall@3", "mrecall@3"]
    for k in (1, 3):
        np.testing.assert_array_equal(values[f"recall@{k}"], recall_at_k(rows, targets, k))
        np.testing.assert_array_equal(values[f"mrecall@{k}"], mrecall_at_k(rows, targets, k))


@pytest.mark.parametrize("ks", [(), (0, 1), (1, 4)])
def test_cut_offs_out_of_range_are_refused(ks):
    with pytest.raises(ValueError, match=r"k must lie|ks must be"):
        evaluate_run(np.array([[1, 2, 3]]), [[[1]]], ks)


def test_a_model_is_searched_with_and_its_lists_are_fused(index):
    result = evaluate_model(Model(), DATASET, index, 2, "two", ks=(2,))
    assert (result.name, result.searches_per_query) == ("two", 2)
    assert result.values["recall@2"].tolist() == [1, 0.5]
    assert result.values["mrecall@2"].tolist() == [1, 0]
    assert result.seconds_per_query > 0
    one = evaluate_model(Model(), DATASET.link(index.store), index, 1, "one", ks=(1,))
    assert one.searches_per_query == 1
    assert one.values["recall@1"].tolist() == [0.5, 0.5]


def test_the_model_gets_what_it_reads(index):
    vectors = DATASET.with_input_vectors(np.eye(2, DIM))
    reads = {}
    for text, vector in ((True, False), (False, True), (True, True)):
        model = Model(text, vector)
        evaluate_model(model, vectors, index, 1, "x", ks=(1,))
        reads[text, vector] = [given is not None for given in model.inputs]
    assert all(list(wanted) == given for wanted, given in reads.items())


def test_what_the_model_cannot_read_is_refused(index):
    vector_only = replace(DATASET, queries=None, input_vectors=np.eye(2, DIM, dtype=np.float32))
    for model, dataset, message in (
        (Model(), vector_only, "reads text"),
        (Model(True, True), DATASET, "with_input_vectors"),
        (Model(), DATASET.select([]), "no queries"),
        (Model(encoder={"name": "another"}), DATASET, "another document encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_model(model, dataset, index, 1, "x", ks=(1,))


def test_query_vectors_at_hand_are_evaluated_alike(index):
    queries = torch.eye(DIM)[torch.tensor([[0, 1], [2, 4]])]
    given = evaluate_embeddings(queries, DATASET, index, "given", ks=(2,))
    expected = evaluate_model(Model(), DATASET, index, 2, "model", ks=(2,))
    np.testing.assert_array_equal(given.values["recall@2"], expected.values["recall@2"])
    assert given.seconds_per_query is None  # what the encoding took is not known


def test_what_an_encoding_took_beforehand_is_added(index):
    queries = torch.eye(DIM)[torch.tensor([[0], [2]])]
    given = evaluate_embeddings(queries, DATASET, index, "given", ks=(2,), encoding_seconds=100)
    model = evaluate_model(Model(), DATASET, index, 2, "model", ks=(2,), encoding_seconds=100)
    assert 100 < given.seconds_per_query < 101 and 100 < model.seconds_per_query < 101


def test_a_summary_compares_on_both_subsets():
    similarity = np.linspace(0, 1, 30)
    generator = np.random.default_rng(0)
    base, better = generator.integers(0, 2, size=(2, 30)).astype(float)
    a, b = (SystemResult(name, {"m": values}, 1) for name, values in (("a", base), ("b", better)))
    summary = summarise(b, similarity, [a, b], resamples=200)["m"]
    for subset, part in (("whole", slice(None)), ("low_similarity", slice(10))):
        test = paired_bootstrap(better[part], base[part], resamples=200)
        assert summary[subset]["mean"] == better[part].mean()
        assert list(summary[subset]["against"]) == ["a"]
        gain = 100 * (better[part].mean() - base[part].mean()) / base[part].mean()
        expected = {**test._asdict(), "gain_percent": pytest.approx(gain)}
        assert summary[subset]["against"]["a"] == expected


def test_no_gain_is_claimed_over_nothing():
    nothing, something = SystemResult("a", {"m": np.zeros(6)}, 1), SystemResult("b", {"m": np.ones(6)}, 1)
    summary = summarise(something, np.arange(6.0), [nothing], resamples=20)
    assert summary["m"]["whole"]["against"]["a"]["gain_percent"] is None


@pytest.mark.parametrize("values", [{}, {"m": np.ones((2, 2))}, {"m": np.ones(2), "n": np.ones(3)}, {"m": [np.nan]}])
def test_broken_values_are_refused(values):
    with pytest.raises(ValueError, match="system 'x'"):
        SystemResult("x", values, 1)
