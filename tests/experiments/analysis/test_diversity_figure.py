from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments.analysis import draw_figure1, figure1_numbers

NEAR_TO_FAR = {"euclidean": np.arange(8) / 10, "cosine": np.arange(8)[::-1] / 100}
FAR_TO_NEAR = {"euclidean": NEAR_TO_FAR["euclidean"][::-1], "cosine": NEAR_TO_FAR["cosine"]}
VALUES = np.array([1, 1, 1, 0, 1, 0, 0, 0])
SIZES = np.array([2, 2, 3, 2, 3, 3, 2, 3])


def numbers_of(retrievers: int = 1, queries: int = 8):
    """As they come back from a file."""
    generator = np.random.default_rng(0)
    values = {f"retriever {i}": generator.random(queries) for i in range(retrievers)}
    distances = {"euclidean": generator.random(queries), "cosine": generator.random(queries)}
    sizes = np.resize([2, 3, 4], queries)
    return json.loads(json.dumps(figure1_numbers("Senses", values, dict.fromkeys(values, distances), sizes)))


def test_the_bins_are_quarters_by_distance_with_the_nearest_first():
    numbers = figure1_numbers("Senses", {"a": VALUES}, {"a": NEAR_TO_FAR}, SIZES)
    assert numbers["distances"]["euclidean"]["whole set"] == {
        "queries": 8,
        "retrievers": {
            "a": {
                "means": [1, 0.5, 0.5, 0],
                "counts": [2, 2, 2, 2],
                "ranges": [[0, 0.1], [0.2, 0.3], [0.4, 0.5], [0.6, 0.7]],
            }
        },
    }
    assert numbers["distances"]["cosine"]["whole set"]["retrievers"]["a"]["means"] == [0, 0.5, 0.5, 1]


def test_every_retriever_has_the_bins_of_its_own_distances():
    distances = {"a": NEAR_TO_FAR, "b": FAR_TO_NEAR}
    numbers = figure1_numbers("Senses", dict.fromkeys(distances, VALUES), distances, SIZES)
    retrievers = numbers["distances"]["euclidean"]["whole set"]["retrievers"]
    assert retrievers["b"]["means"] == retrievers["a"]["means"][::-1]


def test_bins_are_made_anew_within_each_size():
    numbers = figure1_numbers("Senses", {"a": VALUES}, {"a": NEAR_TO_FAR}, SIZES, least_queries=4)
    groups = numbers["distances"]["euclidean"]
    assert list(groups) == ["whole set", "2 targets", "3 targets"]
    assert groups["2 targets"]["retrievers"]["a"]["means"] == [1, 1, 0, 0]
    assert groups["3 targets"]["retrievers"]["a"]["means"] == [1, 1, 0, 0]
    assert groups["3 targets"]["retrievers"]["a"]["ranges"][0] == [0.2, 0.2]
    assert numbers["least_queries"] == 4


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ({2: 50, 3: 40, 4: 39, 5: 1, 6: 2, 8: 1}, {"2 targets": 50, "3 targets": 40, "4 to 8 targets": 43}),
        ({2: 3, 3: 40, 5: 39}, {"2 to 5 targets": 82}),
        ({2: 3, 3: 2}, {"2 to 3 targets": 5}),
        ({5: 12}, {"5 targets": 12}),
        ({2: 40, 3: 39, 4: 50}, {"2 targets": 40, "3 to 4 targets": 89}),
    ],
)
def test_small_sizes_are_put_together_and_no_query_is_lost(counts, groups):
    sizes = np.repeat(list(counts), list(counts.values()))
    distances = {"euclidean": np.zeros(len(sizes)), "cosine": np.zeros(len(sizes))}
    numbers = figure1_numbers("Senses", {"a": np.zeros(len(sizes))}, {"a": distances}, sizes)
    found = {group: entry["queries"] for group, entry in numbers["distances"]["cosine"].items()}
    assert found == {"whole set": len(sizes), **groups}


def test_lines_are_the_means_of_their_panel(tmp_path):
    numbers = numbers_of(3, 150)
    panels = draw_figure1(numbers, tmp_path / "figure.png").axes
    groups = ["whole set", "2 targets", "3 targets", "4 targets"]
    assert [panel.get_title() for panel in panels[:4]] == [
        "whole set\n150 queries", *(f"{group}\n50 queries" for group in groups[1:])
    ]  # fmt: skip
    expected = [
        numbers["distances"][kind][group]["retrievers"] for kind in ("euclidean", "cosine") for group in groups
    ]
    for panel, retrievers in zip(panels, expected, strict=True):
        lines = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
        assert list(lines) == list(retrievers)
        for name, heights in lines.items():
            np.testing.assert_allclose(heights, 100 * np.array(retrievers[name]["means"]))
        assert [label.get_text() for label in panel.get_xticklabels()] == ["<25", "25-50", "50-75", ">75"]
    assert "Euclidean" in panels[0].get_ylabel() and "cosine" in panels[4].get_ylabel()


def test_the_picture_is_a_png_of_150_dots_per_inch_with_all_names_in_its_legend(tmp_path):
    draw_figure1(numbers_of(2), tmp_path / "figure1.png")
    header = (tmp_path / "figure1.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(header[16:20], "big") == round(150 * 6.5)
    (legend,) = draw_figure1(numbers_of(2), tmp_path / "figure.png").legends
    assert [text.get_text() for text in legend.get_texts()] == ["retriever 0", "retriever 1"]


def test_more_retrievers_than_markers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 to 13 lines"):
        draw_figure1(numbers_of(14), tmp_path / "figure1.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {}}, "give both of each retriever"),
        ({"values": {"b": VALUES}}, "give both of each retriever"),
        ({"values": {"a": VALUES[:7]}}, r"values of 'a' must be finite \(8,\)"),
        ({"values": {"a": 100 * VALUES}}, "must lie in 0 to 1"),
        ({"values": {"a": np.full(8, np.nan)}}, "must be finite"),
        ({"distances": {"a": {"cosine": NEAR_TO_FAR["cosine"]}}}, r"give \['euclidean', 'cosine'\]"),
        ({"distances": {"a": {**NEAR_TO_FAR, "cosine": np.full(8, np.nan)}}}, "cosine of 'a' must be finite"),
        ({"num_targets": np.ones(8, dtype=int)}, "single target"),
        ({"num_targets": SIZES[:3]}, "at least 4 queries"),
        ({"num_targets": SIZES / 2}, "must be integers"),
        ({"least_queries": 3}, "need at least 4"),
    ],
)
def test_what_cannot_be_binned_is_refused(change, message):
    given = {"values": {"a": VALUES}, "distances": {"a": NEAR_TO_FAR}, "num_targets": SIZES}
    with pytest.raises(ValueError, match=message):
        figure1_numbers("Senses", **given | change)
