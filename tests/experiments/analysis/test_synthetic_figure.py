from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments.analysis import draw_figure3

BARS = [
    {"setting": setting, "system": system, "transformation": kind, "mrecall@100": mean, "mrecall@10": mean / 2}
    for setting in ("Single", "OOD")
    for system, mean in (("Single-Query", 0.2), ("AMER", 1.0))
    for kind in ("linear", "MLP")
]


def heights(axes):
    return {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}


def test_bars_stand_for_every_mean_without_overlap(tmp_path):
    axes = draw_figure3(BARS, ["mrecall@100", "mrecall@10"], tmp_path / "figure.png").axes
    assert [panel.get_ylabel() for panel in axes] == ["MRecall@100 (%)", "MRecall@10 (%)"]
    assert heights(axes[1]) == {"linear": [10, 50, 10, 50], "MLP": [10, 50, 10, 50]}
    lefts = sorted(patch.get_x() for bar in axes[1].containers for patch in bar)
    assert min(np.diff(lefts)) >= axes[1].containers[0][0].get_width() - 1e-9
    assert len({patch.get_hatch() for bar in axes[0].containers for patch in bar}) == 2
    assert [text.get_text() for text in axes[1].get_xticklabels()] == ["Single-Query", "AMER"] * 2
    written = [text.get_text() for text in axes[1].texts]
    assert written == ["10.00", "50.00", "10.00", "50.00"] * 2 + ["Single", "OOD"]


def test_the_place_of_a_combination_that_is_not_there_stays_empty(tmp_path):
    (axes,) = draw_figure3(BARS[:-1], ["mrecall@10"], tmp_path / "figure.png").axes
    assert np.isnan(heights(axes)["MLP"][3]) and heights(axes)["linear"] == [10, 50, 10, 50]
    assert "nan" not in [text.get_text() for text in axes.texts]


def test_what_cannot_be_drawn_is_refused_and_the_rest_is_a_png(tmp_path):
    path = tmp_path / "figure3.png"
    with pytest.raises(ValueError, match="every result needs setting"):
        draw_figure3(BARS, ["mrecall@7"], path)
    with pytest.raises(ValueError, match="1 to 6 bars"):
        draw_figure3([{**BARS[0], "transformation": str(i)} for i in range(7)], ["mrecall@10"], path)
    assert not path.exists()
    draw_figure3(BARS, ["mrecall@100"], path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
