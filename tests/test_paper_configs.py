"""The configurations of the paper parse and hold the paper's numbers; those of the sweeps are its grids."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from amer.trainer.parsing import parse
from experiments import sweep

FOLDER = Path(__file__).parents[1] / "configs" / "paper"
REQUIRED = ["--dataset", "some/dataset", "--store", "some/store", "--output_dir", "somewhere"]
GPUS = 4
BASES = [
    "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-4B-Instruct-2507",
]  # fmt: skip
COMMON = {  # §4.1, §5.2, A.5; §6.1 and A.6 refer to them
    "objective": "matched", "scheduled_sampling": "linear", "max_targets": None, "lr_scheduler_type": "linear",
    "warmup_steps": 0.05, "adam_beta1": 0.9, "adam_beta2": 0.98, "eval_strategy": "steps", "save_strategy": "steps",
    "eval_steps": 500, "save_steps": 500, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss",
    "greater_is_better": False, "gradient_accumulation_steps": 1, "max_steps": -1, "max_eval_queries": None,
    "anchored": False,
}  # fmt: skip
LORA = {
    "r": 64, "lora_alpha": 16, "lora_dropout": 0.1,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"],
}  # fmt: skip
RATES, TEMPERATURES = [1e-5, 2e-5, 5e-5, 1e-4], [0.05, 0.04, 0.03, 0.02]
GRIDS = {
    "text": {
        "learning_rate": RATES, "per_device_train_batch_size": [8, 16, 32], "temperature": TEMPERATURES,
        "num_train_epochs": [30, 60, 120],
    },
    "synthetic": {
        "learning_rate": RATES, "per_device_train_batch_size": [16, 32, 128], "temperature": TEMPERATURES,
        "num_train_epochs": [500, 1000, 2000, 3000],
    },
}  # fmt: skip


def parsed(name: str, *options: str) -> SimpleNamespace:
    """All fields of train.py with a configuration."""
    groups = parse([str(FOLDER / f"{name}.yaml"), *REQUIRED, *options])
    together = {field: value for group in groups for field, value in vars(group).items()}
    return SimpleNamespace(**together, lora=groups[0].lora)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_configuration_parses_and_every_value_arrives(file):
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    arguments = parsed(file.stem, *([] if "base_model" in values else ["--base_model", "some/base"]))
    for name, value in values.items():
        given = getattr(arguments, name)
        assert given == value or name == "report_to", name


@pytest.mark.parametrize("name", ["ambigqa", "qampari", "synthetic"])
def test_what_all_trainings_of_the_paper_share(name):
    arguments = parsed(name)
    assert {field: getattr(arguments, field) for field in COMMON} == COMMON
    assert arguments.base_model == BASES[0] and arguments.optim == "adamw_torch"
    grid = GRIDS["synthetic" if name == "synthetic" else "text"]
    assert all(getattr(arguments, field) in values for field, values in grid.items())  # a point of the grid


def test_the_synthetic_study_is_that_of_section_5():
    arguments = parsed("synthetic")
    assert arguments.lora is None  # full fine-tuning (A.5)
    assert arguments.per_device_train_batch_size * GPUS == 512
    assert arguments.num_query_vectors == arguments.num_random_negatives == 5  # a negative for each positive
    steps = arguments.num_train_epochs * 18_000 / 512  # a tenth of 20,000 validates
    assert steps == pytest.approx(100_000, rel=0.1)


@pytest.mark.parametrize(("name", "vectors", "targets"), [("ambigqa", 2, 2.58), ("qampari", 5, 6.09)])
def test_the_text_studies_are_those_of_section_6(name, vectors, targets):
    arguments = parsed(name)
    assert arguments.lora == LORA
    assert arguments.per_device_train_batch_size * GPUS == 128
    assert arguments.num_query_vectors == vectors and arguments.num_random_negatives == round(targets)


@pytest.mark.parametrize("name", ["ambigqa", "qampari", "synthetic"])
def test_the_options_that_the_comments_name_are_taken(name):
    """Single-Query, the other base models, and what is always fed back."""
    single = parsed(name, "--max_targets", "1", "--num_query_vectors", "1", "--num_random_negatives", "1")
    assert (single.max_targets, single.num_query_vectors, single.num_random_negatives) == (1, 1, 1)
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert "--max_targets 1 --num_query_vectors 1 --num_random_negatives 1" in text
    assert name == "synthetic" or all(base in text for base in BASES)
    assert parsed(name, "--scheduled_sampling", "always_predicted").scheduled_sampling == "always_predicted"


@pytest.mark.parametrize("name", ["text", "synthetic"])
def test_a_sweep_is_the_grid_of_the_paper_and_every_point_of_it_parses(name, tmp_path):
    file = FOLDER / "sweeps" / f"{name}.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert values["grid"] == GRIDS[name] and values["processes"] == GPUS
    given = {"dataset": "some/dataset", "store": "some/store", "output": tmp_path, "config": None, "set": []}
    read = sweep.read_sweep(Namespace(sweep=file, **given))
    assert read.config.resolve().stem == {"text": "ambigqa", "synthetic": "synthetic"}[name]
    jobs = read.jobs(tmp_path)
    assert len({job.output for _, job in jobs}) == len(jobs) == {"text": 144, "synthetic": 192}[name]
    batches = {job.overrides["per_device_train_batch_size"] for _, job in jobs}
    assert batches == {GPUS * batch for batch in GRIDS[name]["per_device_train_batch_size"]}


def test_there_is_no_other_sweep():
    assert {file.stem for file in (FOLDER / "sweeps").glob("*.yaml")} == set(GRIDS)
