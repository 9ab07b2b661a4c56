from __future__ import annotations

import json

import pytest

from experiments.analysis import statistics_numbers, statistics_table

COUNTS = {
    "AmbigQA": {
        "train": {"queries": 5044, "targets": 12000, "documents": 9},
        "test": {"queries": 827, "targets": 2134},
    },
    "senses": {split: {"queries": 10, "targets": 25} for split in ("train", "validation", "test")},
}


def test_table_1_counts_queries_and_averages_the_targets_of_the_test_set():
    numbers = json.loads(json.dumps(statistics_numbers(COUNTS)))
    assert numbers["datasets"]["AmbigQA"] == {"train": 5044, "validation": None, "test": 827, "targets": 2134 / 827}
    assert statistics_table(numbers).to_markdown().splitlines()[2:] == [
        "| Dataset | Train | Validation | Test | Targets |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| AmbigQA | 5,044 | none | 827 | 2.58 |",
        "| senses | 10 | 10 | 10 | 2.50 |",
    ]


@pytest.mark.parametrize("counts", [{}, {"a": {"train": COUNTS["senses"]["train"]}}, {"a": {"test": {"queries": 0}}}])
def test_a_dataset_without_test_queries_is_refused(counts):
    with pytest.raises(ValueError, match=r"at least one|it needs a test split"):
        statistics_numbers(counts)
