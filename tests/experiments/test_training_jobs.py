"""Jobs run side by side, once; a failure names its log and stops what has not begun."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from experiments import training_jobs

pytestmark = pytest.mark.slow

STUB = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--output_dir")
parser.add_argument("--disable_tqdm")
parser.add_argument("--rate")
arguments = parser.parse_args()
print({"loss": 1.5})
if arguments.rate == "bad":
    sys.exit("no such rate")
folder = pathlib.Path(arguments.output_dir)
with (folder / "runs.txt").open("a") as runs:
    runs.write(arguments.rate)
(folder / "trainer_state.json").write_text(json.dumps({"log_history": [{"rate": arguments.rate}]}))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs jobs of the given rates with a stand-in for train.py; gives the jobs and what the terminal showed."""
    (tmp_path / "train.py").write_text(STUB)
    config = tmp_path / "config.yaml"
    config.write_text("a: 1\n")
    monkeypatch.setattr(training_jobs, "ROOT", tmp_path)

    def run_rates(*rates: str, parallel: int = 2):
        names = [f"job {i}" for i in range(len(rates))]
        jobs = [
            training_jobs.Job(name, config, tmp_path / name, {"rate": rate})
            for name, rate in zip(names, rates, strict=True)
        ]
        console = Console(record=True, width=200, file=io.StringIO())
        training_jobs.run_all(jobs, console, parallel)
        return jobs, console.export_text()

    return run_rates


def test_a_finished_job_is_kept_and_one_with_other_settings_is_trained_anew(run):
    jobs, text = run("1", "2")
    assert text.count("trained in") == 2 and "job 0: {'loss': 1.5}" in text
    assert [training_jobs.history(job) for job in jobs] == [[{"rate": "1"}], [{"rate": "2"}]]
    jobs, text = run("1", "3")
    assert "job 0: already trained" in text and "job 1: settings have changed" in text
    assert [(job.output / "runs.txt").read_text() for job in jobs] == ["1", "3"]


def test_a_job_that_fails_is_named_with_its_log_and_the_rest_is_not_begun(run, tmp_path):
    with pytest.raises(RuntimeError, match=r"job 0.*train\.log"):
        run("bad", "2", "3", "4", parallel=1)
    assert "no such rate" in (tmp_path / "job 0" / "train.log").read_text()
    assert not (tmp_path / "job 3").exists()
    assert json.loads((tmp_path / "job 0" / "job.json").read_text())["overrides"] == {"rate": "bad"}
