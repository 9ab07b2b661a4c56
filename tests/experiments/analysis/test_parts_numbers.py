"""Questions of several parts: metrics, means, deviations and tests by hand, and the tables of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.analysis.parts_numbers import (
    Measured,
    deepest,
    parts_numbers,
    set_metrics,
    splitting_numbers,
)
from experiments.analysis.parts_tables import (
    difference_table,
    draw_parts,
    group_table,
    main_table,
    one_part_table,
    splitting_table,
)

COUNTS = np.array([1, 2, 2, 3])
GROUPS = {"1 part": COUNTS == 1, "2 parts": COUNTS == 2}
TRUE = [["a"], ["a", "b"], ["c", "d"], ["a", "b", "c"]]


def measured(values: list[float], searches: list[int], **own: object) -> Measured:
    metrics = {name: np.array(values) for name in ("recall@m", "recall@10", "mrecall@10")}
    return Measured(metrics, np.array(searches), **own)


@pytest.fixture
def systems() -> dict[str, list[Measured]]:
    split = {"chosen": np.array([1, 2, 3, 3]), "parts": [["a"], ["a", "x"], ["c", "d", "e"], ["a", "b", "c"]]}
    wrong = {"chosen": np.array([2, 2, 2, 3]), "parts": [["a", "z"], ["a", "b"], ["c", "d"], ["a", "b", "c"]]}
    return {
        "one": [measured([1, 0, 0, 0], [1, 1, 1, 1], seconds=0.002)],
        "AMER": [measured([1, 1, 1, 0], [1, 2, 3, 3], **split), measured([1, 0.5, 0.5, 0], [2, 2, 2, 3], **wrong)],
        "oracle": [measured([1, 1, 1, 1], [1, 1, 1, 1])],
    }


def test_every_question_has_its_own_m():
    rows = np.array([[7, 3, 9, *range(100, 197)], [5, 9, 6, *range(200, 297)]])
    values = set_metrics(rows, [[[3]], [[5], [6, 60]]])
    assert list(values)[:4] == ["recall@m", "mrecall@m", "recall@2m", "mrecall@2m"]
    assert values["recall@m"].tolist() == [0, 0.5] and values["mrecall@m"].tolist() == [0, 0]
    assert values["recall@2m"].tolist() == [1, 1] and values["mrecall@2m"].tolist() == [1, 1]


def test_a_list_may_be_read_m_times_as_deep():
    rows = np.array([[7, 3, 9, *range(100, 397)], [5, 9, 8, 6, *range(200, 496)]])
    values = set_metrics(rows, [[[3]], [[5], [6]]], stretch=np.array([1, 2]))
    assert values["recall@m"].tolist() == [0, 1]


def test_the_greatest_depth_is_a_hundred_or_twice_the_parts():
    assert deepest(np.array([1, 6])) == 100 and deepest(np.array([60])) == 120


def test_means_are_over_questions_and_seeds(systems):
    numbers = parts_numbers(systems, GROUPS, ["one"])
    entry = numbers["AMER"]["metrics"]["recall@10"]
    assert entry["mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert entry["deviation"] == pytest.approx(np.std([0.75, 0.5], ddof=1))
    assert entry["against"]["one"]["difference"] == pytest.approx(0.625 - 0.25)
    assert numbers["one"]["metrics"]["recall@10"]["deviation"] is None
    assert numbers["one"]["metrics"]["recall@10"]["against"] == {}
    assert numbers["AMER"]["groups"]["2 parts"]["recall@10"]["mean"] == pytest.approx(0.75)
    assert numbers["AMER"]["groups"]["1 part"]["searches"] == 1.5 and numbers["AMER"]["searches"] == 2.25
    assert numbers["AMER"]["groups"]["1 part"]["recall@10"]["against"]["one"] is None  # one question
    assert numbers["one"]["seconds"] == 0.002 and numbers["AMER"]["seconds"] is None
    json.dumps(numbers)


def test_splitting_is_counted_by_number_and_to_the_letter(systems):
    numbers = splitting_numbers(systems, COUNTS, TRUE)
    assert list(numbers) == ["AMER"]
    assert {key: figure["mean"] for key, figure in numbers["AMER"]["number"].items()} == {
        "all": 0.75,
        "1": 0.5,
        "2": 0.75,
        "3": 1.0,
    }
    assert numbers["AMER"]["parts"]["mean"] == pytest.approx((7 / 8 + 1) / 2)
    assert numbers["AMER"]["questions"]["mean"] == pytest.approx((0.5 + 0.75) / 2)
    assert set(splitting_numbers(systems, COUNTS, None)["AMER"]) == {"number"}


def test_the_tables_say_what_the_numbers_say(systems, tmp_path):
    numbers = parts_numbers(systems, GROUPS, ["one"])
    alone = {"AMER": {"seconds": 0.02, "encoder_seconds": 0.01}}
    numbers = json.loads(json.dumps({name: {**system, "alone": alone.get(name)} for name, system in numbers.items()}))
    main = main_table(numbers, "one", ["oracle"]).to_markdown().splitlines()
    assert main[2].startswith("| System | R@m | R@10 | M@10 | searches | ms |")
    assert main[4] == "| one | 25.00 | 25.00 | 25.00 | 1.00 | 2.0 | n/a | n/a |"
    assert main[5].startswith("| AMER | **62.50 ± 17.68** |") and main[5].endswith("| 2.25 | n/a | 20.0 | 10.0 |")
    assert "**" not in main[6]  # it is told
    difference = difference_table(numbers, "one").to_markdown()
    assert "| AMER | +37.50 (p = " in difference and "| one |" not in difference
    groups = group_table(numbers, {"1 part": 1, "2 parts": 2}, "one", ["oracle"]).to_markdown()
    assert "| AMER | **100.00 ± 0.00** | **100.00 ± 0.00** | **75.00 ± 35.36**" in groups
    alone_table = one_part_table(numbers, "1 part", "one").to_markdown()
    assert "| AMER | 100.00 ± 0.00 | 100.00 ± 0.00 | n/a | n/a | 1.50 |" in alone_table
    splitting = splitting_table(splitting_numbers(systems, COUNTS, TRUE)).to_markdown()
    assert "| System | all | 1 part | 2 parts | 3 parts | exact parts | exact questions |" in splitting
    draw_parts(numbers, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 5_000
