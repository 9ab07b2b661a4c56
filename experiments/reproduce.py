"""Figures and tables of the paper: `python -m experiments.reproduce figure1 table8`, or `all`.

The output folder keeps data, trainings and runs, so nothing is computed twice. Each figure or table is drawn from the
numbers in the JSON file beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from amer.evaluation import (
    evaluate_run,
    low_similarity_third,
    mrecall_at_k,
    ranking_metrics,
    target_distances,
    target_similarity,
)
from amer.evaluation.runs import Run
from amer.files import read_json, write_json
from amer.machine import chosen_device, hardware, hardware_line, versions
from experiments import synthetic
from experiments.analysis import (
    comparison_numbers,
    comparison_table,
    draw_figure1,
    draw_figure3,
    draw_figure4,
    draw_figure5,
    draw_figure6,
    figure1_numbers,
    figure5_numbers,
    figure6_numbers,
    gain_numbers,
    gain_table,
    statistics_numbers,
    statistics_table,
    systems_numbers,
    systems_table,
)
from experiments.study import Study, load_study, slug
from experiments.study_data import StudyData
from experiments.study_runs import reference_runs, retriever_runs, trained_runs
from experiments.training_jobs import ROOT

DEPTH = 100
METRIC = f"mrecall@{DEPTH}"
COMPARED = ("Single-Query", "+Query Expansion", "+Re-ranking", "AMER")
SCHEDULES = {"Single-Query": "Single-Query", "AMER": "Scheduled Sampling", "Always Predicted": "Always Predicted"}
FIGURE6_QUERIES = 1_000
MACHINE = {"chat_endpoint", "search_device"}  # these do not change the results


@dataclass(frozen=True)
class Reproduction:
    """Computes the parts of a study when a figure or table first needs them, and keeps them."""

    study: Study
    folder: Path
    parallel: int
    console: Console

    @cached_property
    def data(self) -> dict[str, StudyData]:
        """Dataset -> its questions, corpus and stores."""
        return {
            name: StudyData(self.study, name, self.folder / slug(name), self.console) for name in self.study.datasets
        }

    @cached_property
    def trained(self) -> dict[str, dict[tuple[str, str, int], Run]]:
        """Dataset -> (base model, system, seed) -> run."""
        return {name: trained_runs(data, self.parallel) for name, data in self.data.items()}

    @cached_property
    def synthetic(self) -> list[dict[str, Any]]:
        """Test results of the six settings of the synthetic study."""
        return synthetic.train_and_evaluate(self.synthetic_arguments, self.console)[0]

    @cached_property
    def synthetic_arguments(self) -> argparse.Namespace:
        """The arguments for `experiments/synthetic.py`."""
        sizes = self.study.synthetic.model_dump(exclude_none=True)
        sizes["config"] = ROOT / sizes.pop("training")
        options = [str(part) for name, value in sizes.items() for part in (f"--{name}", value)]
        every = ["--settings", "single", "multi", "ood", "--parallel", str(self.parallel)]
        return synthetic.parse_arguments([*every, "--output", str(self.folder / "synthetic"), *options])

    @cached_property
    def compared(self) -> dict[str, Any]:
        """The systems of the paper's tables."""
        return self.comparison({name: name for name in COMPARED})

    def values(self, dataset: str, run: Run) -> np.ndarray:
        """MRecall@100 `(q,)` of a run on the test questions."""
        return mrecall_at_k(run.rows, self.data[dataset].splits["test"].target_rows, DEPTH)

    def comparison(self, systems: dict[str, str]) -> dict[str, Any]:
        """Compare systems with Single-Query on every dataset and base model; `systems` maps them to names."""
        values = {
            base: {
                dataset: {
                    shown: np.stack([self.values(dataset, runs[base, system, seed]) for seed in self.study.seeds])
                    for system, shown in systems.items()
                }
                for dataset, runs in self.trained.items()
            }
            for base in self.study.base_models
        }
        low = {
            name: low_similarity_third(target_similarity(data.splits["test"].target_rows, data.store))
            for name, data in self.data.items()
        }
        return comparison_numbers(values, low, METRIC, tested=systems["AMER"])


def check_same_study(folder: Path, study: Study) -> None:
    """Record the study's data in the folder. Decoders, seeds and trainings may change: each records its own settings.

    Raises:
        ValueError: The folder was made with other data.
    """
    data = study.model_dump(
        mode="json", exclude={"retrievers", "base_models", "seeds", "overrides", "single_query", "synthetic", *MACHINE}
    )
    file = folder / "study.json"
    for dataset in data["datasets"].values():
        del dataset["training"]
    before = read_json(file) if file.is_file() else data
    differing = [name for name, value in data.items() if before.get(name) != value]
    if differing:
        raise ValueError(
            f"{folder} was made with another {', '.join(differing)}: choose another --output or remove it"
        )
    write_json(file, data)


def table1(work: Reproduction) -> dict[str, Any]:
    """Data statistics."""
    return statistics_numbers({name: data.counts for name, data in work.data.items()})


def figure1(work: Reproduction) -> dict[str, Any]:
    """Off-the-shelf retrievers by the distance between targets, for each dataset."""
    numbers = {}
    for name, data in work.data.items():
        targets = data.splits["test"].target_rows
        values = {retriever: work.values(name, run) for retriever, run in retriever_runs(data).items()}
        distances = {retriever: target_distances(targets, data.store_behind(retriever)) for retriever in values}
        sizes = np.array([len(clusters) for clusters in targets])
        numbers[name] = figure1_numbers(name, values, distances, sizes, METRIC)
    return numbers


def figure3(work: Reproduction) -> dict[str, Any]:
    """AMER and Single-Query on the six settings of the synthetic study."""
    return {"study": work.study.synthetic.model_dump(mode="json"), "results": work.synthetic}


def compared(work: Reproduction) -> dict[str, Any]:
    """The systems of Tables 2 and 5 to 8 and of Figure 4."""
    return work.compared


def table3(work: Reproduction) -> dict[str, Any]:
    """Scheduled sampling against always feeding predictions."""
    return gain_numbers(work.comparison(SCHEDULES))


def figure5(work: Reproduction) -> dict[str, Any]:
    """The similarity of AMER's vectors of one question, and of its training targets."""
    seeds = work.study.seeds
    embeddings = {
        name: {
            base: np.concatenate([runs[base, "AMER", seed].query_embeddings for seed in seeds])
            for base in work.study.base_models
        }
        for name, runs in work.trained.items()
    }
    targets = {
        name: target_similarity([t for t in data.splits["train"].target_rows if len(t) > 1], data.store)
        for name, data in work.data.items()
    }
    return figure5_numbers(embeddings, targets)


def figure6(work: Reproduction) -> dict[str, Any]:
    """Distances between targets of one question and of two, on text and on the synthetic vectors."""
    vectors = {name: data.target_vectors("train", FIGURE6_QUERIES) for name, data in work.data.items()}
    for transformation in work.synthetic_arguments.transformations:
        data = synthetic.build_data(work.synthetic_arguments, transformation, "single", work.console)
        vectors[f"Synthetic, {transformation}"] = synthetic.target_vectors(data, FIGURE6_QUERIES)
    return figure6_numbers(vectors)


def baselines(work: Reproduction) -> dict[str, Any]:
    """All metrics of every system on the test questions; for trained systems, means over base models and seeds."""
    numbers = {}
    for name, data in work.data.items():
        targets = data.splits["test"].target_rows
        runs = {system: [run] for system, run in (retriever_runs(data) | reference_runs(data)).items()}
        for (_, system, _), run in work.trained[name].items():
            runs.setdefault(system, []).append(run)
        numbers[name] = systems_numbers({
            system: [evaluate_run(run.rows, targets) | ranking_metrics(run.rows, targets, [10, DEPTH]) for run in made]
            for system, made in runs.items()
        })  # fmt: skip
    return numbers


def draw_by_dataset(draw: Callable[[Any, Path], None]) -> Callable[[dict[str, Any], Path], None]:
    """Draw one plot per dataset; the file name contains the dataset's name."""

    def draw_all(numbers: dict[str, Any], path: Path) -> None:
        for name, of_dataset in numbers.items():
            draw(of_dataset, path.with_name(f"{path.name}-{slug(name)}.png"))

    return draw_all


def picture(draw: Callable[[Any, Path], None]) -> Callable[[dict[str, Any], Path], None]:
    """Draw to the path with the suffix `.png`."""
    return lambda numbers, path: draw(numbers, path.with_name(f"{path.name}.png"))


def base_table(number: int) -> Callable[[dict[str, Any], Path], None]:
    """The table of one base model: Table 5 for the first, Table 8 for the last."""

    def save(numbers: dict[str, Any], path: Path) -> None:
        comparison_table(numbers, list(numbers["bases"])[number - 5]).save(path)

    return save


ARTEFACTS: dict[str, tuple[Callable[[Reproduction], dict[str, Any]], Callable[[dict[str, Any], Path], None]]] = {
    "table1": (table1, lambda numbers, path: statistics_table(numbers).save(path)),
    "figure1": (figure1, draw_by_dataset(draw_figure1)),
    "figure6": (figure6, picture(draw_figure6)),
    "figure3": (figure3, picture(lambda numbers, path: draw_figure3(numbers["results"], synthetic.METRICS, path))),
    "figure4": (compared, picture(draw_figure4)),
    "table2": (compared, lambda numbers, path: gain_table(gain_numbers(numbers)).save(path)),
    "table3": (table3, lambda numbers, path: gain_table(numbers).save(path)),
    **{f"table{number}": (compared, base_table(number)) for number in range(5, 9)},
    "figure5": (figure5, picture(draw_figure5)),
    "baselines": (baselines, lambda numbers, path: systems_table(numbers).save(path)),
}
"""Name -> the functions that compute and draw its numbers; `all` follows this order."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse `arguments`, or the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("artefacts", nargs="+", choices=[*ARTEFACTS, "all"], help="what to reproduce")
    parser.add_argument("--dataset", default="paper", help="study: name of a file in configs/paper/studies")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "reproduce", help="folder for everything")
    parser.add_argument("--parallel", type=int, default=2, help="number of trainings at a time")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Compute and draw the requested figures and tables."""
    parsed, console, started = parse_arguments(arguments), Console(), time.perf_counter()
    work = Reproduction(load_study(parsed.dataset), parsed.output.resolve() / parsed.dataset, parsed.parallel, console)
    check_same_study(work.folder, work.study)
    wanted = ARTEFACTS if "all" in parsed.artefacts else dict.fromkeys(parsed.artefacts)
    for artefact in wanted:
        compute, draw = ARTEFACTS[artefact]
        path = work.folder / "results" / artefact
        file = path.with_name(f"{artefact}.json")
        device = chosen_device()
        made = {
            "study": parsed.dataset,
            "date": date.today().isoformat(),
            "machine": hardware_line(hardware(device)),
            "versions": versions(),
        }
        write_json(file, {**made, "numbers": compute(work)})
        draw(read_json(file)["numbers"], path)
        console.print(f"[bold]{artefact}[/]: {path}")
    console.print(f"This took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
