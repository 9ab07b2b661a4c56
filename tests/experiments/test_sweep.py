"""A sweep trains every point of its grid, goes on past failures, and chooses the lowest validation loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from amer.corpus import write_store
from amer.data import RetrievalDataset, save_dataset_dir
from amer.trainer import run as training
from amer.trainer.parsing import parse
from experiments import sweep, training_jobs
from tests.conftest import DIM

CONFIG = {
    "base_model": "some/base", "num_query_vectors": 2, "num_random_negatives": 2, "eval_ks": [2, 10], "max_steps": 4,
    "per_device_train_batch_size": 2, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no",
    "logging_steps": 1, "report_to": "none", "use_cpu": True, "learning_rate": 5.0e-5,
}  # fmt: skip
GRID = {"learning_rate": [1.0e-3, 1.0e-2], "temperature": [0.05, 0.1]}

STUB = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--output_dir")
parser.add_argument("--learning_rate", type=float)
arguments, _ = parser.parse_known_args()
history = [{"step": 2, "eval_loss": arguments.learning_rate}]
pathlib.Path(arguments.output_dir, "trainer_state.json").write_text(json.dumps({"log_history": history}))
"""


def write_sweep(folder: Path, **changes) -> Path:
    """A sweep's file in a folder, beside the folder with its configuration."""
    (folder / "sweeps").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    values = {"config": "../config.yaml", "grid": GRID, **changes}
    file = folder / "sweeps" / "some.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return file


def run(file: Path, *options: str, dataset: str = "some/dataset", store: str = "some/store") -> int:
    where = ["--dataset", dataset, "--store", store, "--output", str(file.parent / "out")]
    return sweep.main([str(file), *where, *options])


def result(file: Path) -> dict:
    return json.loads((file.parent / "out" / "sweep.json").read_text())


@pytest.fixture
def trained(monkeypatch) -> list[training_jobs.Job]:
    """The jobs given to `run_all`, in whose place a parabola is trained: lowest at 1e-3 and 0.1, in the first half.

    A job of "seed" 13 fails, one of seed 14 never validates, one of seed 15 diverges.
    """
    jobs = []

    def run_all(given: list[training_jobs.Job], console, parallel: int) -> None:
        (job,) = given
        jobs.append(job)
        fields = job.overrides
        if fields.get("seed") == 13:
            raise RuntimeError(f"Training {job.name!r} failed with code 1; see its [log].")
        loss = abs(np.log10(fields.get("learning_rate", 1e-3)) + 3) + abs(fields.get("temperature", 0.1) - 0.1) + 1
        evaluations = [{"step": 2, "eval_loss": loss}, {"step": 4, "eval_loss": loss + 1}]
        if fields.get("seed") == 15:
            evaluations = [{"step": 2, "eval_loss": float("nan")}, {"step": 4, "eval_loss": loss + 1}]
        history = [{"step": 1, "loss": 0.1}, *(evaluations if fields.get("seed") != 14 else [])]
        job.output.mkdir(parents=True)
        (job.output / training_jobs.DONE).write_text(json.dumps({"log_history": history}))

    monkeypatch.setattr(sweep, "run_all", run_all)
    return jobs


def test_the_lowest_validation_loss_of_any_step_wins(trained, tmp_path, capsys):
    file = write_sweep(tmp_path)
    assert run(file, "--parallel", "2") == 0
    assert len(trained) == 4
    found = result(file)
    assert found["best"] == {"learning_rate": 1e-3, "temperature": 0.1} and found["failed"] == []
    assert [(entry["eval_loss"], entry["step"]) for entry in found["runs"]] == [
        (pytest.approx(loss), 2) for loss in (1, 1.05, 2, 2.05)
    ]
    assert found["runs"][1]["fields"] == {"learning_rate": 1e-3, "temperature": 0.05}
    assert (file.parent / "out" / found["runs"][1]["folder"]).is_dir()
    assert (file.parent / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert table.index("1.0000") < table.index("1.0500") < table.index("2.0500")


def test_the_plot_shows_all_runs_and_the_best_of_each_value(trained, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(sweep, "save_figure", lambda figure, path: figures.append(figure))
    run(write_sweep(tmp_path))
    rates, temperatures = figures[0].axes
    assert (rates.get_xlabel(), temperatures.get_xlabel()) == ("learning_rate", "temperature")
    assert [label.get_text() for label in rates.get_xticklabels()] == ["0.001", "0.01"]
    for axes, lowest in ((rates, [1, 2]), (temperatures, [1.05, 1])):
        every, best = axes.get_lines()
        assert sorted(every.get_ydata()) == pytest.approx([1, 1.05, 2, 2.05])
        assert list(best.get_xdata()) == [0, 1] and list(best.get_ydata()) == pytest.approx(lowest)


def test_the_best_configuration_is_ready_for_train(trained, tmp_path):
    file = write_sweep(tmp_path)
    run(file, "--set", "seed=3", "base_model=another/base")
    model, data, args = parse([str(file.parent / "out" / "best.yaml"), "--output_dir", "somewhere"])
    assert (args.learning_rate, args.temperature, args.seed) == (1e-3, 0.1, 3)
    assert (model.base_model, data.dataset, data.store) == ("another/base", "some/dataset", "some/store")
    assert data.eval_ks == [2, 10] and args.per_device_train_batch_size == 2 and args.max_steps == 4
    assert all(job.overrides["seed"] == 3 for job in trained)


def test_one_process_has_the_batch_of_all_and_the_best_that_of_each(trained, tmp_path):
    file = write_sweep(tmp_path, processes=4, grid={"per_device_train_batch_size": [8, 16]})
    run(file)
    assert sorted(job.overrides["per_device_train_batch_size"] for job in trained) == [32, 64]
    assert yaml.safe_load((file.parent / "out" / "best.yaml").read_text())["per_device_train_batch_size"] == 8
    file = write_sweep(tmp_path, processes=3, grid={"seed": [0]})
    run(file)
    assert trained[-1].overrides["per_device_train_batch_size"] == 6  # of the configuration
    best = (file.parent / "out" / "best.yaml").read_text()
    assert yaml.safe_load(best)["per_device_train_batch_size"] == 2 and "each of 3 process" in best


@pytest.mark.parametrize(("seed", "message"), [(13, "failed with code 1; see its [log]"), (14, "logged no eval_loss")])
def test_a_run_that_fails_is_reported_and_the_others_go_on(trained, tmp_path, capsys, seed, message):
    file = write_sweep(tmp_path, grid={"seed": [seed, 0, 1]})
    assert run(file) == 1
    assert [entry["fields"] for entry in result(file)["runs"]] == [{"seed": 0}, {"seed": 1}]
    assert result(file)["failed"] == [f"seed {seed}"] and len(trained) == 3
    shown = capsys.readouterr().out
    assert message in shown and f"failed: seed {seed}, see" in shown


def test_an_evaluation_that_is_no_number_is_not_the_lowest(trained, tmp_path):
    file = write_sweep(tmp_path, grid={"seed": [15, 0]})
    assert run(file) == 0
    assert [(entry["fields"]["seed"], entry["step"]) for entry in result(file)["runs"]] == [(0, 2), (15, 4)]


def test_where_all_runs_fail_there_is_no_best(trained, tmp_path):
    file = write_sweep(tmp_path, grid={"seed": [13]})
    assert run(file) == 1
    assert not (file.parent / "out").exists()


def test_machines_share_the_work_by_numbers(trained, tmp_path):
    file = write_sweep(tmp_path)
    assert run(file, "--only", "2", "3", "3") == 0
    assert [job.name for job in trained] == [
        "learning_rate 0.001, temperature 0.1",
        "learning_rate 0.01, temperature 0.05",
    ]
    assert not (file.parent / "out" / "sweep.json").exists()
    with pytest.raises(ValueError, match=r"--only takes numbers from 1 to 4, got \[0, 5\]"):
        run(file, "--only", "0", "4", "5")


def test_a_wider_grid_keeps_the_folders_of_the_runs_it_had(tmp_path):
    def folders(grid: dict) -> dict[str, Path]:
        made = sweep.Sweep(tmp_path, {}, {}, grid, 1).jobs(tmp_path)
        return {job.name: job.output for _, job in made}

    narrow, wide = folders({"base_model": ["a/b", "a_b"]}), folders({"base_model": ["c", "a_b", "a/b"]})
    assert wide.items() >= narrow.items() and len(set(wide.values())) == 3
    assert all(folder.parent == tmp_path for folder in wide.values())


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"grid": {"lernrate": [1]}}, [], "'lernrate' is not a training field"),
        ({"grid": {"learning_rat": [1]}}, [], "'learning_rat' is not"),  # argparse would take the abbreviation
        ({"grid": {"dataset": ["a"]}}, [], "'dataset' is not a training field"),
        ({}, ["--set", "lernrate=1"], "'lernrate' is not a training field"),
        ({}, ["--set", "temperature=1"], r"'temperature' is in the grid of .*some\.yaml and in --set"),
        ({}, ["--set", "seed"], r"seed takes .* got \[None\]"),
        ({"grid": {"seed": 1}}, [], "seed takes distinct numbers .* got 1"),
        ({"grid": {"seed": []}}, [], r"seed takes .* got \[\]"),
        ({"grid": {"seed": [1, 1]}}, [], r"seed takes distinct .* got \[1, 1\]"),
        ({"grid": {"eval_ks": [[1, 2]]}}, [], r"eval_ks takes .* got \[\[1, 2\]\]"),
        ({"grid": []}, [], r"needs `grid`.* got \[\]"),
        ({"grid": None}, [], "needs `grid`.* got None"),
        ({"grids": {}}, [], "unknown key 'grids'; did you mean grid"),
        ({"config": None}, [], "names no config"),
        ({"processes": 0}, [], "processes must be .* got 0"),
        ({"grid": {"objective": ["matched", "ordered"]}}, [], "objective must be one of"),
        ({"grid": {"max_targets": [2, 1]}}, [], "max_targets is 1"),
        ({}, ["--set", "eval_strategy='no'"], "never validates"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(trained, tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message):
        run(write_sweep(tmp_path, **changes), *options)
    assert not trained


def test_another_configuration_may_take_the_place_of_the_one_named(trained, tmp_path):
    file = write_sweep(tmp_path, config="nowhere.yaml")
    run(file, "--config", str(tmp_path / "config.yaml"))
    assert all(job.config == tmp_path / "config.yaml" for job in trained)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(file)


def test_an_interrupt_begins_nothing_more(monkeypatch, tmp_path):
    begun = []

    def interrupted(jobs, console, parallel) -> None:
        begun.append(jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(write_sweep(tmp_path, grid={"seed": list(range(50))}))
    assert len(begun) < 50


@pytest.mark.slow
def test_what_is_trained_already_is_not_trained_again(monkeypatch, tmp_path, capsys):
    """By the real launcher, with a stand-in for train.py."""
    (tmp_path / "train.py").write_text(STUB)
    monkeypatch.setattr(training_jobs, "ROOT", tmp_path)
    file = write_sweep(tmp_path, grid={"learning_rate": [0.25, 0.125]})
    assert run(file, "--parallel", "2") == 0
    found = result(file)
    assert found["best"] == {"learning_rate": 0.125} and found["runs"][0]["eval_loss"] == 0.125
    assert run(file) == 0 and result(file) == found
    assert capsys.readouterr().out.count("already trained") == 2


@pytest.mark.slow
def test_real_trainings_are_compared_and_the_best_is_trained_alike_once_more(llama, tmp_path, monkeypatch):
    """By the real train.py, in this process, since each launch would import for seconds."""

    def run_all(jobs, console, parallel: int) -> None:
        (job,) = jobs
        options = [str(part) for name, value in job.overrides.items() for part in (f"--{name}", value)]
        training.main([str(job.config), "--output_dir", str(job.output), "--disable_tqdm", "true", *options])

    monkeypatch.setattr(sweep, "run_all", run_all)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"d{number}" for number in range(20)]
    documents = pa.table({"id": ids, "title": [""] * 20, "text": ids})
    write_store(tmp_path / "store", documents, vectors, {"name": "hand-made"}, dtype="float32")
    targets = [[[f"d{2 * number}"], [f"d{2 * number + 1}"]] for number in range(10)]
    split = RetrievalDataset([f"q{n}" for n in range(10)], targets, [[]] * 10, input_vectors=vectors[:10])
    save_dataset_dir(tmp_path / "dataset", {"train": split, "validation": split}, {})
    where = {"dataset": str(tmp_path / "dataset"), "store": str(tmp_path / "store")}
    file = write_sweep(tmp_path, grid={"learning_rate": [1.0e-6, 1.0e-2]})
    assert run(file, "--set", f"base_model={llama}", **where) == 0
    best, other = result(file)["runs"]
    assert best["fields"] == {"learning_rate": 1e-2} and best["step"] == 4
    assert best["eval_loss"] < other["eval_loss"] and "eval_mrecall@2" in best
    training.main([str(file.parent / "out" / "best.yaml"), "--output_dir", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again" / training_jobs.DONE).read_text())["log_history"]
    assert [entry["eval_loss"] for entry in again if "eval_loss" in entry][-1] == best["eval_loss"]
