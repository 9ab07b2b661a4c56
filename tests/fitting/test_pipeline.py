"""From two files to a model that searches, in small."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from amer.data import load_dataset_dir
from amer.files import read_json
from amer.fitting import Settings, fit, pipeline
from amer.fitting.pipeline import show_next
from amer.hub_cards import model_card
from amer.offline import MINILM
from amer.trainer import run
from modeling_amer import AMERConfig
from tests.commands.running import amer

pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def train_here(trainings, console) -> None:
    """In this process, which has imported everything."""
    for training in trainings:
        run.main(training.arguments[1:])


@pytest.fixture(scope="module")
def fitted(files, tiny_encoder, tmp_path_factory) -> SimpleNamespace:
    """What a call left and said."""
    settings = Settings(
        tmp_path_factory.mktemp("fit") / "out",
        str(files / "pairs.jsonl"),
        str(files / "docs.jsonl"),
        tiny_encoder,
        num_train=100,
        train_steps=2,
    )
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "run_trainings", train_here)
        comparison = fit(settings, Console(file=stream, width=200))
    return SimpleNamespace(settings=settings, comparison=comparison, said=stream.getvalue())


def test_everything_is_built_trained_and_reported(fitted):
    output = fitted.settings.output
    names = {"questions", "compound", "store", "tokens", "model", "one-vector"}
    assert {path.name for path in output.iterdir()} == names | {"report.md", "results.json", "comparison.png"}
    splits = load_dataset_dir(output / "compound" / "dataset")
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [100, 100, 100]
    states = [read_json(output / name / "trainer_state.json") for name in ("model", "one-vector")]
    assert [state["global_step"] for state in states] == [2, 2]
    configs = [read_json(output / name / "config.json") for name in ("model", "one-vector")]
    assert [config["max_query_vectors"] for config in configs] == [8, 1]
    assert len(fitted.comparison.parts) == 100


def test_the_terminal_has_the_table_three_questions_and_the_next_commands(fitted):
    for number in range(1, 8):
        assert f"{number}/7  " in fitted.said
    rows = [line.split("│")[1].strip() for line in fitted.said.splitlines() if line.startswith("│")]
    assert rows == ["encoder alone", "split by rule", "one vector", "AMER", "told the split"]
    assert fitted.said.count("found by") == 3
    commands = [shlex.split(line) for line in fitted.said.splitlines() if line.startswith("  amer ")]
    assert [command[1] for command in commands] == ["search", "serve"]


def test_the_next_commands_run(fitted, capsys):
    commands = [shlex.split(line)[1:] for line in fitted.said.splitlines() if line.startswith("  amer ")]
    amer(*commands[0], "--k", "3")
    assert "all about the" in " ".join(capsys.readouterr().out.split())


def test_the_results_are_what_a_card_reads(fitted):
    config = AMERConfig.from_pretrained(fitted.settings.model)
    card = model_card(config, "org/amer", report=read_json(fitted.settings.output / "results.json"))
    assert all(f"| {name} |" in card.replace("**", "") for name in ("AMER", "one vector", "split by rule"))


def test_a_model_on_a_folder_is_not_offered_to_be_pushed(fitted):
    for encoder, count in ((MINILM, 3), (fitted.settings.encoder, 2)):
        stream = io.StringIO()
        show_next(replace(fitted.settings, encoder=encoder), "what's up", Console(file=stream, width=40))
        commands = [shlex.split(line) for line in stream.getvalue().splitlines() if line.startswith("  amer ")]
        assert [command[1] for command in commands] == ["search", "serve", "push"][:count]
        assert commands[0][2] == "what's up"


def test_each_stage_is_the_command_that_is_shown(fitted, capsys):
    """All of them find their work done: with other arguments they would refuse the folder."""
    before = (fitted.settings.store / "store.json").read_bytes()
    lines = [line for line in fitted.said.splitlines() if line.startswith("amer ")]
    assert [shlex.split(line)[1] for line in lines] == ["dataset", "dataset", "corpus", "train", "train"]
    for line in lines:
        amer(*shlex.split(line)[1:])
    assert (fitted.settings.store / "store.json").read_bytes() == before


def test_a_second_call_keeps_what_is_done_and_gives_the_same_table(fitted, monkeypatch):
    monkeypatch.setattr(pipeline, "run_trainings", train_here)
    weights = fitted.settings.model / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = fit(fitted.settings, Console(file=io.StringIO()))
    assert weights.stat().st_mtime_ns == before
    for old, new in zip(fitted.comparison.systems, again.systems, strict=True):
        assert {name: values.tolist() for name, values in old.values.items()} == {
            name: values.tolist() for name, values in new.values.items()
        }


def test_the_api_reference_needs_no_files(tiny_encoder, tmp_path, monkeypatch, capsys):
    """With the trainings in processes of their own, as for a user."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    packages = [word for name in ("json", "os", "pathlib", "statistics", "shutil") for word in ("--package", name)]
    sizes = ["--num-train", "50", "--train-steps", "2", "--encoder", tiny_encoder]
    amer("fit", "python-api", *packages, *sizes, "--output", tmp_path / "out")
    said = capsys.readouterr().out
    assert "2/2" in said and "told the split" in said
    assert "epoch" in (tmp_path / "out" / "model" / "train.log").read_text()
