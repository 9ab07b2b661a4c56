"""Systems against a reference, on all queries and on those with dissimilar targets (paper §6.3, Tables 2, 3, 5-8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np

from amer.evaluation.report import SUBSETS
from amer.evaluation.significance import paired_bootstrap

Values = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""Base model -> dataset -> system -> `(seeds, q)` values of 0 to 1."""


def comparison_numbers(
    values: Values,
    low: Mapping[str, np.ndarray],
    metric: str = "mrecall@100",
    reference: str = "Single-Query",
    tested: str = "AMER",
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the numbers of Tables 2, 3 and 5 to 8 and of Figure 4.

    Args:
        values: Base model -> dataset -> system -> `(seeds, q)` values of 0 to 1, for the same queries in the same
            order; the number of seeds may differ. Every base model needs the same datasets and systems.
        low: Dataset -> `(q,)` bool, the low similarity set (`amer.evaluation.low_similarity_third`).
        metric: Name of the metric.
        reference: The system that gains are relative to.
        tested: The system that gets an asterisk if it differs from the reference; all systems get p-values.
        resamples: Number of resamples of the paired bootstrap over queries, on each query's mean over the seeds.
        seed: Seed of the paired bootstrap.

    Returns:
        `{"metric", "reference", "tested", "resamples", "seed", "queries": {dataset: {subset: int}}, "bases": {base:
        {dataset: {system: {"seeds": int, subset: {"mean", "deviation", "gain", "p_value"}}}}}}` for the subsets
        "whole" and "low_similarity". The deviation is that of the seeds' means (divisor n - 1), None for one seed. The
        gain is `(B - A) / A`, None if the reference A is 0. The reference has no p-value.

    Raises:
        ValueError: A base model has other datasets or systems than the first, the reference is unknown, values have
            another shape, are NaN or outside 0 to 1, or a low similarity set has under two queries or another length.
    """
    _check_names(values, low, reference, tested)
    bases = {}
    for base, datasets in values.items():
        bases[base] = {
            dataset: _compare(systems, low[dataset], reference, f"{base}, {dataset}", resamples, seed)
            for dataset, systems in datasets.items()
        }
    queries = {name: {"whole": len(mask), "low_similarity": int(np.sum(mask))} for name, mask in low.items()}
    settings = {"metric": metric, "reference": reference, "tested": tested, "resamples": resamples, "seed": seed}
    return {**settings, "queries": queries, "bases": bases}


def gain_numbers(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Average the relative gains over the base models, with equal weights (paper Tables 2 and 3).

    Args:
        comparison: Result of `comparison_numbers`.

    Returns:
        `{"metric", "reference", "queries", "seeds": [least, most], "bases": [str], "systems": {system: {dataset:
        {subset: {"gain": float | None, "bases": [str]}}}}}`. The inner "bases" are the base models in the average: a
        base model whose reference is 0 has no gain. The reference itself is left out.
    """
    bases, datasets = comparison["bases"], comparison["queries"]
    first = next(iter(next(iter(bases.values())).values()))
    systems: dict[str, Any] = {name: {} for name in first if name != comparison["reference"]}
    for (name, of_datasets), dataset, subset in product(systems.items(), datasets, SUBSETS):
        gains = {base: numbers[dataset][name][subset]["gain"] for base, numbers in bases.items()}
        defined = {base: gain for base, gain in gains.items() if gain is not None}
        mean = float(np.mean(list(defined.values()))) if defined else None
        of_datasets.setdefault(dataset, {})[subset] = {"gain": mean, "bases": list(defined)}
    kept = {name: comparison[name] for name in ("metric", "reference", "queries")}
    return {**kept, "seeds": seed_range(bases.values()), "bases": list(bases), "systems": systems}


def seed_range(bases: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[int]:
    """The least and the most seeds of any system, for some of the "bases" of `comparison_numbers`."""
    seeds = [system["seeds"] for datasets in bases for systems in datasets.values() for system in systems.values()]
    return [min(seeds), max(seeds)]


def _compare(
    systems: Mapping[str, np.ndarray], low: np.ndarray, reference: str, place: str, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare the systems of one base model on one dataset."""
    checked = {name: _checked(values, low, f"{place}, {name}") for name, values in systems.items()}
    chosen = {"whole": np.ones(len(low), dtype=bool), "low_similarity": low}
    compared: dict[str, dict[str, Any]] = {name: {"seeds": len(values)} for name, values in checked.items()}
    for subset, mask in chosen.items():
        base = checked[reference][:, mask]
        for name, values in checked.items():
            means = values[:, mask].mean(axis=1)
            entry = {"mean": float(means.mean()), "deviation": None, "gain": None, "p_value": None}
            if len(means) > 1:
                entry["deviation"] = float(means.std(ddof=1))
            if base.any():
                entry["gain"] = entry["mean"] / float(base.mean(axis=1).mean()) - 1
            if name != reference:
                per_query = values[:, mask].mean(axis=0)
                entry["p_value"] = paired_bootstrap(per_query, base.mean(axis=0), resamples, seed).p_value
            compared[name][subset] = entry
    return compared


def _check_names(values: Values, low: Mapping[str, np.ndarray], reference: str, tested: str) -> None:
    systems = {
        (base, dataset): list(named) for base, datasets in values.items() for dataset, named in datasets.items()
    }
    first = next(iter(systems.values()), [])
    for base, datasets in values.items():
        if set(datasets) != set(low):
            raise ValueError(f"base model {base!r} has the datasets {list(datasets)}, low has {list(low)}: give both")
    for (base, dataset), names in systems.items():
        if set(names) != set(first):
            raise ValueError(f"{base!r} on {dataset!r} has the systems {names}, the first has {first}: give the same")
    missing = {reference, tested} - set(first)
    if missing or reference == tested:
        raise ValueError(f"reference {reference!r} and tested {tested!r} must be two of the systems {first}")


def _checked(values: np.ndarray, low: np.ndarray, place: str) -> np.ndarray:
    values, low = np.asarray(values, dtype=np.float64), np.asarray(low)
    if low.dtype != bool or low.ndim != 1 or low.sum() < 2:
        raise ValueError(f"{place}: low must be (q,) bool with two queries or more, got {low.dtype} {low.shape}")
    if values.ndim != 2 or not len(values) or values.shape[1] != len(low):
        raise ValueError(f"{place}: values must be (seeds, {len(low)}), a row for each seed, got {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{place}: values must lie in 0 to 1 (shares, not percent); some do not, or are NaN")
    return values
