"""All systems by all metrics: means by hand, and the table of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.analysis import systems_numbers, systems_table

ONE = {"recall@10": np.array([1.0, 0.5]), "ndcg@10": np.array([0.2, 0.4])}
OTHER = {"recall@10": np.array([0.0, 0.5]), "ndcg@10": np.array([0.6, 0.8])}


def test_means_are_over_queries_and_runs():
    numbers = systems_numbers({"off-the-shelf": [ONE], "AMER": [ONE, OTHER]})
    assert numbers["off-the-shelf"] == {"runs": 1, "metrics": {"recall@10": 0.75, "ndcg@10": pytest.approx(0.3)}}
    assert numbers["AMER"] == {"runs": 2, "metrics": {"recall@10": 0.5, "ndcg@10": pytest.approx(0.5)}}


def test_the_table_has_a_row_a_system_and_the_best_of_a_dataset_in_bold():
    numbers = {"senses": systems_numbers({"off-the-shelf": [ONE], "AMER": [ONE, OTHER]})}
    lines = systems_table(json.loads(json.dumps(numbers))).to_markdown().splitlines()
    assert lines[-2:] == [
        "| senses | off-the-shelf | 1 | **75.00** | 30.00 |",
        "|  | AMER | 2 | 50.00 | **50.00** |",
    ]


@pytest.mark.parametrize("values", [{}, {"AMER": []}, {"AMER": [ONE, {"recall@10": ONE["recall@10"]}]}])
def test_systems_that_cannot_be_compared_are_refused(values):
    with pytest.raises(ValueError, match=r"give at least one|needs at least one"):
        systems_numbers(values)
