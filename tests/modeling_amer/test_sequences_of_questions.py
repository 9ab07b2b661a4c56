"""Questions in whatever holds a column of texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_amer import as_questions
from tests.conftest import build

datasets = pytest.importorskip("datasets")
pd = pytest.importorskip("pandas")

TEXTS = ["alpha", "beta two", "gamma three words", "d"]
SEQUENCES = {
    "tuple": tuple(TEXTS),
    "series": pd.Series(TEXTS, index=[2, 0, 3, 1]),
    "filtered series": pd.Series(["out", *TEXTS])[1:],
    "index": pd.Index(TEXTS),
    "array": np.array(TEXTS),
    "objects": np.array(TEXTS, dtype=object),
    "column": datasets.Dataset.from_dict({"query": TEXTS})["query"],
    "generator": (text for text in TEXTS),
}


@pytest.mark.parametrize("kind", [*SEQUENCES])
def test_questions_are_read_by_their_position_in_any_sequence(kind):
    assert as_questions(SEQUENCES[kind]) == TEXTS


def test_a_series_gives_the_vectors_of_its_list(llama):
    model = build(llama)
    found = model.encode_query(pd.Series(TEXTS, index=[2, 0, 3, 1]), batch_size=2)
    assert torch.equal(found, model.encode_query(TEXTS, batch_size=2))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "Question 1 is a NoneType"),
        (pd.Series(["a", None, "b"]), "Question 1 is a (NoneType|float)"),
        (np.array([1, 2]), "Question 0 is a int64"),
        (b"bank", "got bytes"),
        ({"bank": 1}, "got dict"),
        ({"bank"}, "got set"),
        (7, "got int"),
        (pd.DataFrame({"query": ["a"]}), "got DataFrame of 2 dimensions"),
        (np.array("bank"), "got ndarray of 0 dimensions"),
    ],
)
def test_what_is_no_sequence_of_texts_is_refused_by_type_and_position(llama, texts, message):
    with pytest.raises(TypeError, match=message):
        build(llama).encode_query(texts)
