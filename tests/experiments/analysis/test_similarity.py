from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex

from amer.data.synthetic import distance_report
from experiments.analysis import draw_figure5, draw_figure6, figure5_numbers, figure6_numbers

OUTPUTS = np.array([[[2.0, 0], [0, 3]], [[1, 0], [-5, 0]], [[1, 0], [0.6, 0.8]]])  # cosines 0, -1 and 0.6
TARGETS = np.array([0.7, 0.9])
RAGGED = [np.array([[2.0, 0], [0, 1], [-3, 0]]), np.array([[1.0, 0], [1, 0]])]


def heights(axes):
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}


def test_output_similarity_is_the_mean_over_pairs_and_queries():
    numbers = figure5_numbers({"Senses": {"Llama-1B": OUTPUTS}}, {"Senses": TARGETS})
    assert numbers["datasets"]["Senses"] == {
        "Between Targets": {"similarity": pytest.approx(0.8), "queries": 2},
        "Llama-1B": {"similarity": pytest.approx(-0.4 / 3), "queries": 3, "query_vectors": 2},
    }
    vectors = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    expected = np.mean([[query[a] @ query[b] for a, b in ((0, 1), (0, 2), (1, 2))] for query in unit])
    numbers = figure5_numbers({"Senses": {"Llama-1B": vectors}}, {"Senses": TARGETS})
    assert numbers["datasets"]["Senses"]["Llama-1B"]["similarity"] == pytest.approx(expected, abs=1e-6)


def test_figure_5_has_a_blue_bar_for_the_targets_and_one_for_each_base_model(tmp_path):
    embeddings = {"AmbigQA": {"1B": OUTPUTS, "3B": OUTPUTS[:1]}, "Senses": {"3B": OUTPUTS[1:2], "1B": OUTPUTS[2:]}}
    targets = {"AmbigQA": TARGETS, "Senses": TARGETS / 2}
    numbers = json.loads(json.dumps(figure5_numbers(embeddings, targets)))
    (axes,) = draw_figure5(numbers, tmp_path / "figure.png").axes
    expected = {"Between Targets": [0.8, 0.4], "1B": [-0.4 / 3, 0.6], "3B": [0, -1]}
    assert heights(axes) == {name: pytest.approx(values, abs=1e-12) for name, values in expected.items()}
    assert to_hex(axes.containers[0][0].get_facecolor()) == "#0072b2"
    assert [text.get_text() for text in axes.texts] == ["0.80", "0.40", "-0.13", "0.60", "0.00", "-1.00"]
    draw_figure5(numbers, tmp_path / "figure5.png")
    assert (tmp_path / "figure5.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("embeddings", "targets", "message"),
    [
        ({}, {}, "give both of each dataset"),
        ({"a": {"1B": OUTPUTS}}, {"b": TARGETS}, "give both of each dataset"),
        ({"a": {}}, {"a": TARGETS}, "has the base models"),
        (
            {"a": {"1B": OUTPUTS}, "b": {"3B": OUTPUTS}},
            {"a": TARGETS, "b": TARGETS},
            "dataset 'b' has the base models",
        ),
        ({"a": {"1B": OUTPUTS[:, :1]}}, {"a": TARGETS}, "m at least 2"),
        ({"a": {"1B": OUTPUTS[:0]}}, {"a": TARGETS}, "q at least 1"),
        ({"a": {"1B": OUTPUTS[0]}}, {"a": TARGETS}, r"must be \(q, m, dim\)"),
        ({"a": {"1B": 0 * OUTPUTS}}, {"a": TARGETS}, "a, 1B: a vector is zero"),
        ({"a": {"1B": np.nan * OUTPUTS}}, {"a": TARGETS}, "NaN"),
        ({"a": {"1B": OUTPUTS}}, {"a": TARGETS[:0]}, "n at least 1"),
        ({"a": {"1B": OUTPUTS}}, {"a": np.array([np.nan])}, "must be finite"),
    ],
)
def test_wrong_embeddings_are_refused(embeddings, targets, message):
    with pytest.raises(ValueError, match=message):
        figure5_numbers(embeddings, targets)


def test_distances_of_queries_with_different_numbers_of_targets():
    entry = figure6_numbers({"Senses": RAGGED})["datasets"]["Senses"]
    # Same query: distances sqrt 2, 2, sqrt 2 and 0. Two queries: of three targets to (1, 0), and once more back.
    half, root = 0.5, 2**0.5
    assert entry == {
        "queries": 2,
        "targets": 5,
        "euclidean": {
            "same_query": pytest.approx(half * (2 * root + 2) / 3),
            "random_queries": pytest.approx((root + 2) / 3),
        },
        "cosine": {"same_query": pytest.approx(half * 4 / 3), "random_queries": pytest.approx(1)},
    }


@pytest.mark.parametrize("seed", [0, 3])
def test_equals_the_report_on_synthetic_data(seed):
    vectors = np.random.default_rng(1).standard_normal((40, 5, 16)).astype(np.float32) + 0.5
    report = distance_report(vectors, seed)
    entry = figure6_numbers({"synthetic": list(vectors)}, seed)["datasets"]["synthetic"]
    for kind in ("euclidean", "cosine"):
        assert entry[kind]["same_query"] == pytest.approx(report[f"same_query_{kind}"], abs=1e-6)
        assert entry[kind]["random_queries"] == pytest.approx(report[f"random_query_{kind}"], abs=1e-6)


def test_figure_6_has_blue_and_orange_bars_for_either_distance(tmp_path):
    vectors = {"Senses": RAGGED, "other": [*RAGGED[::-1], np.eye(2)]}
    numbers = json.loads(json.dumps(figure6_numbers(vectors, seed=1)))
    for axes, kind in zip(draw_figure6(numbers, tmp_path / "figure.png").axes, ("euclidean", "cosine"), strict=True):
        same, random = heights(axes).values()
        assert same == [numbers["datasets"][name][kind]["same_query"] for name in vectors]
        assert random == [numbers["datasets"][name][kind]["random_queries"] for name in vectors]
        assert [to_hex(bars[0].get_facecolor()) for bars in axes.containers] == ["#0072b2", "#e69f00"]
        assert len({bars[0].get_hatch() for bars in axes.containers}) == 2
        assert kind in axes.get_ylabel().lower()
    draw_figure6(numbers, tmp_path / "figure6.png")
    assert (tmp_path / "figure6.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "at least one"),
        ({"a": RAGGED[:1]}, "a: 1 queries are given"),
        ({"a": [*RAGGED, RAGGED[0][:1]]}, "query number 2 .* single target"),
        ({"a": [*RAGGED, np.eye(3)]}, "of one dim"),
        ({"a": [*RAGGED, np.zeros(2)]}, r"must be \(m, dim\)"),
        ({"a": [*RAGGED, np.zeros((2, 2))]}, "a: a vector is zero"),
        ({"a": [*RAGGED, np.full((2, 2), np.nan)]}, "NaN"),
    ],
)
def test_wrong_targets_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        figure6_numbers(vectors)
