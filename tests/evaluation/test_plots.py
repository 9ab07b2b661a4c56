from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from amer.evaluation import (
    Report,
    SystemResult,
    plot_by_diversity,
    plot_groups,
    plot_quartiles,
    plot_training_curve,
    plot_training_run,
)
from amer.evaluation.plots import MARKERS

SIMILARITY = np.linspace(0, 1, 16)
HISTORIES = {"a": [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 9.0}, {"step": 3, "loss": 1.0}]}


def report_of(count: int) -> Report:
    values = np.random.default_rng(0).random((count, 16))
    return Report([SystemResult(f"system {i}", {"mrecall@10": v}, 1) for i, v in enumerate(values)], SIMILARITY)


def png_size(path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_every_plot_is_a_png_of_150_dots_per_inch(tmp_path):
    plot_by_diversity(report_of(2), "mrecall@10", tmp_path / "diversity.png")
    plot_training_curve(HISTORIES, "loss", tmp_path / "curve.png")
    assert png_size(tmp_path / "diversity.png") == png_size(tmp_path / "curve.png") == (1275, 720)
    assert len(list(tmp_path.iterdir())) == 2


def test_lines_are_the_quartile_means_and_thirteen_systems_look_different(tmp_path):
    report = report_of(13)
    lines = plot_quartiles(report.by_quartile("mrecall@10"), "mrecall@10", tmp_path / "figure.png").axes[0].get_lines()
    for line, means in zip(lines, report.by_quartile("mrecall@10").values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(means))
    assert len({line.get_marker() for line in lines}) == 13
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 13


def test_bars_are_the_values_of_each_group_and_thirteen_systems_look_different(tmp_path):
    values = {f"system {i}": [i / 20, 0.5] for i in range(13)}
    axes = plot_groups(values, ["one part", "2 parts"], "Recall@10 (%)", tmp_path / "figure.png").axes[0]
    for bars, means in zip(axes.containers, values.values(), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in bars], 100 * np.array(means))
    looks = {(bars[0].get_facecolor(), bars[0].get_hatch()) for bars in axes.containers}
    assert len(looks) == 13 and [label.get_text() for label in axes.get_xticklabels()] == ["one part", "2 parts"]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bars in axes.containers for bar in bars)
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(edges))
    with pytest.raises(ValueError, match="each of 3 groups"):
        plot_groups(values, ["a", "b", "c"], "", tmp_path / "figure.png")


def test_a_training_curve_skips_entries_without_the_metric(tmp_path):
    (line,) = plot_training_curve(HISTORIES, "loss", tmp_path / "figure.png").axes[0].get_lines()
    assert line.get_xydata().tolist() == [[1, 2], [3, 1]]


def test_a_report_from_its_file_is_drawn_as_the_report_itself(tmp_path):
    report = report_of(2)
    plot_by_diversity(report, "mrecall@10", tmp_path / "report.png")
    results = report.to_dict()
    quartiles = {name: system["metrics"]["mrecall@10"]["quartiles"] for name, system in results["systems"].items()}
    plot_quartiles(quartiles, "mrecall@10", tmp_path / "file.png", results["quartile_ranges"])
    assert (tmp_path / "file.png").read_bytes() == (tmp_path / "report.png").read_bytes()
    (axes,) = plot_quartiles(quartiles, "mrecall@10", tmp_path / "figure.png", results["quartile_ranges"]).axes
    assert axes.get_xticklabels()[0].get_text() == "most diverse\n0.00 to 0.20"
    (axes,) = plot_quartiles(quartiles, "mrecall@10", tmp_path / "figure.png").axes
    assert axes.get_xticklabels()[3].get_text() == "least diverse"


def test_a_run_is_drawn_with_its_losses_above_its_validation_metrics(tmp_path):
    history = [
        {"step": 1, "loss": 2.0, "grad_norm": 9.0},
        {"step": 2, "loss": None},
        {"step": 2, "eval_loss": 3.0, "eval_recall@10": 0.25},
        {"step": 4, "loss": 1.0},
        {"step": 4, "train_loss": 1.5},
    ]
    losses, metrics = plot_training_run(history, tmp_path / "figure.png").axes
    drawn = {line.get_label(): line.get_xydata().tolist() for panel in (losses, metrics) for line in panel.get_lines()}
    assert drawn == {"training": [[1, 2], [4, 1]], "validation": [[2, 3]], "Recall@10": [[2, 25]]}
    assert (losses.get_ylabel(), metrics.get_ylabel()) == ("Loss", "Validation (%)")
    assert losses.get_xlim() == metrics.get_xlim()
    assert len(plot_training_run(history[:1], tmp_path / "figure.png").axes) == 1


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(ValueError, match=f"1 to {len(MARKERS)} lines"):
        plot_by_diversity(report_of(len(MARKERS) + 1), "mrecall@10", path)
    with pytest.raises(ValueError, match="choose from mrecall@10"):
        plot_by_diversity(report_of(2), "recall@10", path)
    with pytest.raises(ValueError, match="never logs 'accuracy'; it logs eval_loss, loss, step"):
        plot_training_curve(HISTORIES, "accuracy", path)
    with pytest.raises(ValueError, match="neither loss nor eval_loss; it holds step"):
        plot_training_run([{"step": 1}], path)
    assert not list(tmp_path.iterdir())
