"""Only vectors that were emitted search, and their lists are those they have alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus.store import write_store
from amer.search import ExactIndex, Searcher, round_robin, search_lists
from tests.conftest import DIM, build_mini


@pytest.fixture
def index(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"d{i}" for i in range(20)]
    return ExactIndex(write_store(tmp_path, pa.table({"id": ids, "title": ids, "text": ids}), vectors, ENCODER))


ENCODER = {"name": "tiny", "revision": None, "document_prompt": "", "query_prompt": ""}


class Counting:
    def __init__(self, index):
        self.index, self.store, self.searched = index, index.store, 0

    def search(self, query_embeddings, k, filter=None):
        self.searched += query_embeddings.shape[0] * query_embeddings.shape[1]
        return self.index.search(query_embeddings, k, filter)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_vectors_of_zeros_are_not_searched(index, kind):
    queries = np.random.default_rng(1).normal(size=(4, 3, DIM)).astype(np.float32)
    rows, scores = index.search(queries, 5)
    active = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=bool)
    counting = Counting(index)
    found_rows, found_scores = search_lists(counting, kind(queries * active[:, :, None]), 5)
    assert counting.searched == active.sum()
    np.testing.assert_array_equal(found_rows, np.where(active[:, :, None], rows, -1))
    np.testing.assert_allclose(found_scores[active], scores[active], rtol=1e-5)
    assert (found_scores[~active] == -np.inf).all()
    fused = round_robin(found_rows, found_scores, 5)
    assert set(fused.found_by[1]) == {0} and set(fused.found_by[2]) <= {0, 1}
    np.testing.assert_array_equal(fused.rows[1], rows[1, 0])


def test_a_searcher_spends_a_list_on_every_emitted_vector_and_no_other(index, tiny_encoder):
    model = build_mini(tiny_encoder)
    model.config.document_encoder = ENCODER
    model.document_encoder_path = tiny_encoder
    model.output_projection.weight.data.normal_(std=5)  # so that the vectors of a question find different documents
    questions = ["bank", "a river, and a bank", "???", "word " * 2000]
    tokens = [question.vectors for question in model.document_encoder.encode_tokens(questions)]
    first = torch.cat([model(input_vectors=vectors[None]).stop_logits[0, :1] for vectors in tokens])
    model.stop_projection.bias.data -= first.detach().median() + 1e-4  # some stop after one vector, some go on
    emitted = model.encode_query(questions, num_query_vectors="auto").mask.sum(dim=1)
    assert 1 in emitted.tolist() and emitted.max() > 1
    counting = Counting(index)
    found = Searcher(model, counting).search(questions, k=6)
    assert counting.searched == emitted.sum()
    for hits, count in zip(found, emitted.tolist(), strict=True):
        assert len(hits) == 6 and {hit.found_by for hit in hits} == set(range(count))
    counting.searched = 0
    (hits,) = Searcher(model, counting).search(questions[:1], k=6, num_query_vectors=2)
    assert counting.searched == 2 and {hit.found_by for hit in hits} == {0, 1}
