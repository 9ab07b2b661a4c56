"""Metrics, runs, significance, diversity of targets, reports and plots. Heavy packages are imported on first use."""

from __future__ import annotations

from amer.evaluation.answer_recall import answer_mrecall_at_k, answer_recall_at_k, normalise_answer
from amer.evaluation.diversity import (
    low_similarity_third,
    similarity_quartiles,
    target_distances,
    target_similarity,
)
from amer.evaluation.evaluate import SystemResult, evaluate_embeddings, evaluate_model, evaluate_run, summarise
from amer.evaluation.plots import (
    plot_by_diversity,
    plot_groups,
    plot_quartiles,
    plot_training_curve,
    plot_training_run,
)
from amer.evaluation.ranking import ranking_metrics
from amer.evaluation.recall import mrecall_at_k, recall_at_k
from amer.evaluation.report import Report
from amer.evaluation.runs import Run
from amer.evaluation.significance import BootstrapResult, paired_bootstrap

__all__ = [
    "BootstrapResult",
    "Report",
    "Run",
    "SystemResult",
    "answer_mrecall_at_k",
    "answer_recall_at_k",
    "evaluate_embeddings",
    "evaluate_model",
    "evaluate_run",
    "low_similarity_third",
    "mrecall_at_k",
    "normalise_answer",
    "paired_bootstrap",
    "plot_by_diversity",
    "plot_groups",
    "plot_quartiles",
    "plot_training_curve",
    "plot_training_run",
    "ranking_metrics",
    "recall_at_k",
    "similarity_quartiles",
    "summarise",
    "target_distances",
    "target_similarity",
]
