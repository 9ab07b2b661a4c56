"""Results of systems on questions of several parts: means, deviations over seeds, and paired tests, as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amer.evaluation import paired_bootstrap
from amer.evaluation.recall import Targets, mrecall_from_ranks, recall_from_ranks, target_ranks

RESAMPLES = 10_000
CUTOFFS = (10, 100)  # in addition to m, the number of parts of the question, and 2m
BY_GROUP = ("recall@10", "mrecall@10")


@dataclass(frozen=True, eq=False)
class Measured:
    """Results of one system with one seed on all questions.

    Attributes:
        values: Metric -> `(q,)`.
        searches: `(q,)` number of query vectors searched.
        seconds: Time per question in a batch, with encoding, search and fusion; None if it is not meaningful.
        parts: The parts of each question as split by the system; None if it does not split.
        chosen: `(q,)` number of parts the system chose; None if it does not choose the number.
    """

    values: dict[str, np.ndarray]
    searches: np.ndarray
    seconds: float | None = None
    parts: list[list[str]] | None = None
    chosen: np.ndarray | None = None


def deepest(counts: np.ndarray) -> int:
    """The largest k of `set_metrics` for questions with `counts (q,)` parts."""
    return max(*CUTOFFS, 2 * int(counts.max()))


def set_metrics(rows: np.ndarray, targets: Targets, stretch: np.ndarray | int = 1) -> dict[str, np.ndarray]:
    """Compute Recall@k and MRecall@k of every question at k = m, 2m, 10 and 100, where m is its number of targets.

    Args:
        rows: `(q, n)` store rows, best first, with n at least the largest k; -1 is padding.
        targets: The targets of each question, each a list of rows.
        stretch: Factor of k, for all questions or `(q,)` for each.

    Returns:
        metric -> `(q,)`: "recall@m", "mrecall@m", "recall@2m" and so on.
    """
    m = np.array([len(clusters) for clusters in targets])
    cutoffs = {"m": m, "2m": 2 * m, **{str(k): k for k in CUTOFFS}}
    ranks = target_ranks(rows, targets, rows.shape[1])
    values = {}
    for name, k in cutoffs.items():
        values[f"recall@{name}"] = recall_from_ranks(ranks, k * stretch)
        values[f"mrecall@{name}"] = mrecall_from_ranks(ranks, k * stretch)
    return values


def parts_numbers(
    systems: Mapping[str, Sequence[Measured]], groups: Mapping[str, np.ndarray], references: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compute means over questions and seeds, overall and in each group, and the difference from each reference.

    A test pairs the questions; the value of a question is its mean over the seeds of the system.

    Args:
        systems: Name -> results, one per seed, all on the same questions.
        groups: Name -> `(q,)` bool, the questions in the group.
        references: Names of systems.

    Returns:
        system -> `{"seeds", "searches", "seconds", "metrics": {metric: entry}, "groups": {group: {"searches",
        metric: entry}}}`. An entry is `{"mean", "deviation", "against": {reference: {"difference", "low", "high",
        "p_value"}}}`. The deviation over seeds is None for one seed; a test is None for one question.
    """
    pooled = {name: _pooled(seeds) for name, seeds in systems.items()}
    numbers = {}
    for name, seeds in systems.items():
        others = {other: pooled[other] for other in references if other in pooled and other != name}

        def entry(metric: str, chosen: np.ndarray, name: str = name, others: Any = others) -> dict[str, Any]:
            means = [seed.values[metric][chosen].mean() for seed in systems[name]]
            own = pooled[name][metric][chosen]
            tests = {
                other: paired_bootstrap(own, values[metric][chosen], RESAMPLES)._asdict() if chosen.sum() > 1 else None
                for other, values in others.items()
            }
            return {"mean": float(np.mean(means)), "deviation": _deviation(means), "against": tests}

        everyone = np.ones(len(seeds[0].searches), dtype=bool)
        seconds = [seed.seconds for seed in seeds if seed.seconds is not None]
        numbers[name] = {
            "seeds": len(seeds),
            "searches": _searches(seeds, everyone),
            "seconds": float(np.mean(seconds)) if seconds else None,
            "metrics": {metric: entry(metric, everyone) for metric in pooled[name]},
            "groups": {
                group: {
                    "searches": _searches(seeds, chosen),
                    **{metric: entry(metric, chosen) for metric in BY_GROUP},
                }
                for group, chosen in groups.items()
            },
        }
    return numbers


def splitting_numbers(
    systems: Mapping[str, Sequence[Measured]], counts: np.ndarray, parts: Sequence[Sequence[str]] | None
) -> dict[str, dict[str, Any]]:
    """Compute how well systems split questions; each figure is a mean over seeds with its deviation.

    Args:
        systems: Name -> results, one per seed; systems that do not choose a number of parts are skipped.
        counts: `(q,)` number of parts of each question.
        parts: The texts of the true parts; None if unknown.

    Returns:
        system -> `{"number": {"all": figure, "1": figure, ...}, "parts": figure, "questions": figure}`: the share of
        questions with the right number of parts, overall and by that number; the share of true parts found exactly;
        the share of questions with all parts right. A figure is `{"mean", "deviation"}`.
    """
    found = {}
    for name, seeds in systems.items():
        if any(seed.chosen is None for seed in seeds):
            continue
        right = [seed.chosen == counts for seed in seeds]
        by_number = {str(n): [own[counts == n].mean() for own in right] for n in np.unique(counts).tolist()}
        number = {"all": [own.mean() for own in right], **by_number}
        found[name] = {"number": {key: _figure(values) for key, values in number.items()}}
        if parts is not None and all(seed.parts is not None for seed in seeds):
            shares = [_exact(seed.parts or [], parts) for seed in seeds]
            found[name]["parts"], found[name]["questions"] = map(_figure, zip(*shares, strict=True))
    return found


def _exact(found: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> tuple[float, float]:
    """The share of true parts that are found, and of questions with exactly the true parts."""
    hits = [part in own for own, wanted in zip(found, true, strict=True) for part in wanted]
    whole = [list(own) == list(wanted) for own, wanted in zip(found, true, strict=True)]
    return float(np.mean(hits)), float(np.mean(whole))


def _pooled(seeds: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Metric -> `(q,)`, the mean of each question over the seeds."""
    return {metric: np.mean([seed.values[metric] for seed in seeds], axis=0) for metric in seeds[0].values}


def _searches(seeds: Sequence[Measured], chosen: np.ndarray) -> float:
    return float(np.mean([seed.searches[chosen].mean() for seed in seeds]))


def _figure(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "deviation": _deviation(values)}


def _deviation(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
