from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex

from experiments.analysis import comparison_numbers, draw_figure4

LOW = np.arange(12) < 4
BASES = ("Llama-3.2-1B-Instruct", "Qwen3-4B")


def comparison_of(seeds: int = 3, systems: int = 3):
    """As it comes back from a file."""
    generator = np.random.default_rng(0)
    names = ["Single-Query", "AMER", *(f"other {i}" for i in range(systems - 2))]
    values = {
        base: {dataset: {name: generator.random((seeds, 12)) for name in names} for dataset in ("AmbigQA", "Senses")}
        for base in BASES
    }
    return json.loads(json.dumps(comparison_numbers(values, {"AmbigQA": LOW, "Senses": LOW}, resamples=10)))


def bars_of(axes):
    return {bars.get_label(): bars for bars in axes.containers if hasattr(bars, "patches")}


def test_bars_are_the_means_and_error_bars_the_deviations_of_their_panel(tmp_path):
    comparison = comparison_of()
    panels = iter(draw_figure4(comparison, tmp_path / "figure.png").axes)
    for dataset in ("AmbigQA", "Senses"):
        for subset in ("whole", "low_similarity"):
            drawn = bars_of(axes := next(panels))
            assert axes.get_title().startswith(dataset)
            assert [label.get_text() for label in axes.get_xticklabels()] == ["Llama-3.2-1B-\nInstruct", "Qwen3-4B"]
            for name, bars in drawn.items():
                entries = [comparison["bases"][base][dataset][name][subset] for base in BASES]
                heights = [100 * entry["mean"] for entry in entries]
                np.testing.assert_allclose([bar.get_height() for bar in bars], heights)
                (_, _, (segments,)) = bars.errorbar.lines
                ends = np.array([segment[:, 1] for segment in segments.get_segments()])
                np.testing.assert_allclose(np.diff(ends)[:, 0], [200 * entry["deviation"] for entry in entries])
    assert not list(panels)


def test_systems_differ_in_colour_and_hatch_and_stand_in_the_legend(tmp_path):
    figure = draw_figure4(comparison_of(systems=6), tmp_path / "figure.png")
    drawn = bars_of(figure.axes[0])
    assert len({to_hex(bars[0].get_facecolor()) for bars in drawn.values()}) == 6
    assert len({bars[0].get_hatch() for bars in drawn.values()}) == 6
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(drawn)
    lefts = sorted(bar.get_x() for bars in drawn.values() for bar in bars)
    assert min(np.diff(lefts)) == pytest.approx(drawn["AMER"][0].get_width())


def test_one_seed_is_drawn_without_error_bars(tmp_path):
    figure = draw_figure4(comparison_of(seeds=1), tmp_path / "figure4.png")
    assert (tmp_path / "figure4.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (_, _, (segments,)) = bars_of(figure.axes[0])["AMER"].errorbar.lines
    assert not any(segment.size for segment in segments.get_segments())


def test_more_systems_than_hatches_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 to 6 bars"):
        draw_figure4(comparison_of(systems=7), tmp_path / "figure4.png")
    assert not list(tmp_path.iterdir())
