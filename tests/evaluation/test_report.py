from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from amer.evaluation import Report, SystemResult

SIMILARITY = np.linspace(0, 1, 40)


def system(name: str, share: float, **changes) -> SystemResult:
    """Finds everything in the most similar `share` of the queries, nothing elsewhere."""
    values = (SIMILARITY >= 1 - share).astype(float)
    return SystemResult(name, {"recall@10": values, "mrecall@10": values}, **{"searches_per_query": 2, **changes})


def make_report(**changes) -> Report:
    systems = [system("Single|Query", 0.5), system("[AMER]", 1, seconds_per_query=0.0125), system("twin", 0.5)]
    options = {"references": ("Single|Query", "twin"), "metadata": {"dataset": "hand"}, "resamples": 200}
    return Report(**{"systems": systems, "similarity": SIMILARITY, **options, **changes})


def test_the_json_holds_means_gains_and_p_values(tmp_path):
    report = make_report()
    report.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.md", "results.json"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == report.to_dict()
    assert (results["queries"], results["low_similarity_queries"]) == (40, 14)
    assert results["quartile_ranges"] == [[SIMILARITY[first], SIMILARITY[first + 9]] for first in (0, 10, 20, 30)]
    amer = results["systems"]["[AMER]"]
    assert (amer["searches_per_query"], amer["seconds_per_query"]) == (2, 0.0125)
    metric = amer["metrics"]["mrecall@10"]
    assert metric["quartiles"] == [1, 1, 1, 1]
    assert metric["whole"]["mean"] == 1
    assert metric["whole"]["against"]["Single|Query"]["gain_percent"] == 100
    assert metric["whole"]["against"]["twin"]["p_value"] == 1 / 201
    assert metric["low_similarity"]["against"]["twin"]["gain_percent"] is None
    twin = results["systems"]["twin"]["metrics"]["mrecall@10"]
    assert twin["quartiles"] == [0, 0, 1, 1]
    assert twin["whole"]["against"] == {
        "Single|Query": {"difference": 0, "low": 0, "high": 0, "p_value": 1, "gain_percent": 0}
    }


def test_the_markdown_marks_the_best_and_the_significant():
    lines = make_report().to_markdown().splitlines()
    assert "- dataset: hand" in lines
    whole, low = lines.index("## Whole set: 40 queries"), lines.index("## Low similarity third: 14 queries")
    assert "| [AMER] | 2 | 12.5 | **100.00**†‡ | **100.00**†‡ |" in lines[whole:low]
    assert "| Single\\|Query | 2 | n/a | 50.00 | 50.00 |" in lines[whole:low]
    assert "| Single\\|Query | 2 | n/a | 0.00 | 0.00 |" in lines[low:]
    assert "- † differs from Single|Query (p < 0.05, paired bootstrap, 200 resamples)." in lines
    against = lines[lines.index("## Against Single|Query") :]
    row = next(line for line in against if line.startswith("| [AMER] | MRecall@10"))
    assert row.split(" | ")[3:5] == ["+100.0%", "0.0050"]


def test_the_table_shows_the_same_figures():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(make_report().table())
    text = console.export_text()
    assert "[AMER]" in text and "Single|Query" in text
    assert text.count("100.00†‡") == 4


def test_a_report_needs_no_reference():
    report = make_report(references=())
    assert "Against" not in report.to_markdown()
    assert report.to_dict()["systems"]["twin"]["metrics"]["mrecall@10"]["whole"] == {"mean": 0.5, "against": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": []}, "at least one"),
        ({"systems": [system("a", 1), system("a", 0.5)]}, "different names"),
        ({"references": ("nobody",)}, "references must be"),
        ({"references": "twin"}, "references must be"),
        ({"similarity": SIMILARITY[:3]}, "four queries"),
        ({"similarity": SIMILARITY[:30]}, "of 40 queries"),
        ({"systems": [system("twin", 1), SystemResult("b", {"other": SIMILARITY}, 1)]}, "system 'b' has other"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_report(**changes)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="choose from recall@10, mrecall@10"):
        make_report().by_quartile("mrecall@7")
