"""What is written down of a training: settings that matter, times that are true after a resume, nothing but JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from amer.hub import origin
from amer.trainer import AMERTrainingArguments
from amer.trainer.record import ESSENTIAL, TrainingClock, training_record

HISTORY = [
    {"step": 1, "loss": 3.0, "num_candidates": 40, "seconds": 10.0},
    {"step": 2, "loss": math.nan, "grad_norm": math.inf, "num_candidates": 36, "seconds": 20.0},
    {"step": 2, "eval_recall@10": 0.5, "seconds": 24.5},
]


class TinyModel:
    config = SimpleNamespace(lora={"r": 4})

    def num_parameters(self, only_trainable: bool = False) -> int:
        return 10 if only_trainable else 1000


def a_trainer(tmp_path, **settings) -> SimpleNamespace:
    """As much of a finished trainer as a record reads."""
    args = AMERTrainingArguments(output_dir=str(tmp_path / "secret"), use_cpu=True, report_to="none", **settings)
    state = TrainerState(global_step=2, epoch=0.5, log_history=[dict(entry) for entry in HISTORY])
    state.best_metric, state.best_global_step = 0.5, 2
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    return SimpleNamespace(args=args, state=state, accelerator=accelerator, model=TinyModel())


def test_a_record_is_json_and_says_what_was_run(tmp_path):
    trainer = a_trainer(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    record = training_record(trainer, {"source": "WordNet"}, {"count": 5, "checksums": ["long"]})
    json.dumps(record, allow_nan=False)
    assert (record["steps"], record["epochs"], record["seconds"]) == (2, 0.5, 24.5)
    assert record["batch"] == {"per_process": 4, "processes": 1, "accumulation": 3, "effective": 12}
    assert record["candidates_per_query"] == {"least": 36, "most": 40}
    assert record["parameters"] == {"trained": 10, "all": 1000} and record["lora"] == {"r": 4}
    assert record["hardware"]["device"] and record["hardware"]["cores"] >= 1
    assert {"python", "torch", "transformers", "peft"} <= record["versions"].keys()
    assert record["dataset"] == {"source": "WordNet"} and record["store"] == {"count": 5}
    assert "best" not in record  # the last state was kept, not the best
    assert [entry.get("loss") for entry in record["log_history"]] == [3.0, None, None]
    assert record["log_history"][1]["grad_norm"] is None


def test_settings_are_the_essential_ones_and_those_that_differ(tmp_path):
    settings = training_record(a_trainer(tmp_path, label_smoothing_factor=0.1, bf16=True))["settings"]
    assert settings["learning_rate"] == 5e-5 and settings["temperature"] == 0.05  # defaults, but essential
    assert settings["label_smoothing_factor"] == 0.1 and settings["bf16"] is True
    assert not settings.keys() & {
        "fp16",
        "output_dir",
        "use_cpu",
        "report_to",
        "hub_token",
        "logging_steps",
        "do_train",
    }
    assert "secret" not in json.dumps(settings)


def test_the_defaults_differ_from_themselves_in_nothing(tmp_path):
    assert set(training_record(a_trainer(tmp_path))["settings"]) == set(ESSENTIAL)


def test_the_best_checkpoint_is_told_where_it_was_kept(tmp_path):
    options = {"load_best_model_at_end": True, "metric_for_best_model": "recall@10", "eval_strategy": "steps"}
    record = training_record(a_trainer(tmp_path, **options, save_steps=10, eval_steps=10))
    assert record["best"] == {"metric": "eval_recall@10", "value": 0.5, "step": 2}


def test_what_nobody_measured_is_left_out(tmp_path):
    trainer = a_trainer(tmp_path)
    trainer.state.log_history = [{"step": 1, "loss": 3.0}]
    record = training_record(trainer)
    assert not record.keys() & {"seconds", "candidates_per_query", "dataset", "store", "best"}


def test_the_clock_goes_on_where_the_checkpoint_left_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("amer.trainer.record.time.perf_counter", lambda: now[0])
    state, control = TrainerState(), TrainerControl()

    def session(clock: TrainingClock, starts: float, logs: list[float]) -> None:
        now[0] = starts
        clock.on_train_begin(None, state, control)
        for seconds in logs:
            now[0] = seconds
            state.log_history.append({"step": 1})
            clock.on_log(None, state, control)

    session(TrainingClock(), 100.0, [110.0, 125.0])
    del state.log_history[-1]  # killed after 25 seconds, the checkpoint is of 10
    session(TrainingClock(), 7.0, [9.0, 12.5])
    assert [entry["seconds"] for entry in state.log_history] == [10.0, 12.0, 15.5]


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("{tmp}/senses", "{tmp}/senses", {"name": "senses"}),
        ("org/senses", "/cache/snapshots/" + "a" * 40, {"repo_id": "org/senses", "revision": "a" * 40}),
        ("org/senses@v1", "/cache/snapshots/" + "a" * 40, {"repo_id": "org/senses", "revision": "a" * 40}),
        ("org/senses@v1", "/somewhere", {"repo_id": "org/senses", "revision": "v1"}),
        ("org/senses", "/somewhere", {"repo_id": "org/senses"}),
    ],
)
def test_where_data_came_from(tmp_path, name, folder, expected):
    (tmp_path / "senses").mkdir()
    assert origin(name.format(tmp=tmp_path), Path(folder.format(tmp=tmp_path))) == expected
