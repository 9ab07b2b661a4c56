"""What holds for every command: help without torch, exit codes, errors in two lines, interrupts, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.main import get_command

from amer.commands import main
from amer.commands.app import ORDER, app
from tests.commands.running import amer

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "numpy", "pyarrow", "faiss", "datasets", "huggingface_hub", "fastapi"}


def paths(command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group."""
    below = getattr(command, "commands", {})
    return [path, *(found for name, sub in below.items() for found in paths(sub, (*path, name)))]


PATHS = paths(get_command(app))
HELP = """
import sys
from amer.commands import main
for path in {paths!r}:
    try:
        main([*path, "--help"])
    except SystemExit as ended:
        assert ended.code == 0, (path, ended.code)
    print("loaded:", *sorted({heavy!r} & sys.modules.keys()))
"""


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m amer ARGUMENTS`."""
    command = [sys.executable, "-m", "amer", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_every_help_exits_with_0_and_loads_nothing_heavy():
    assert len(PATHS) >= 25
    shown = subprocess.run(
        [sys.executable, "-c", HELP.format(paths=PATHS, heavy=HEAVY)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.count("Usage: amer") == len(PATHS)
    assert [line for line in shown.splitlines() if line.startswith("loaded:")] == ["loaded:"] * len(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_and_every_option_says_what_it_is(path):
    command = get_command(app)
    for name in path:
        command = command.commands[name]
    assert command.help and (path or set(command.commands) == set(ORDER))
    assert all(getattr(option, "help", None) for option in command.params)


def test_the_help_of_launched_commands_says_how_to_launch_them(capsys):
    for path in (["corpus", "encode"], ["encode"]):
        amer(*path, "--help")
        shown = capsys.readouterr().out
        assert f"accelerate launch --num_processes 8 -m amer {' '.join(path)} ..." in shown
        assert f"torchrun --nproc_per_node 4 -m amer {' '.join(path)} ..." in shown


# ---------------------------------------------------------------------------------------------------------- exit codes


def run(capsys, *arguments: object) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code, *capsys.readouterr()


def test_what_worked_ends_with_0(capsys):
    code, said, errors = run(capsys, "--version")
    assert code == 0 and said.startswith("amer ") and not errors


@pytest.mark.parametrize(
    "wrong",
    [
        ["nonsense"],
        ["search", "bank"],
        ["search", "bank", "--model", "m", "--store", "s", "--k", "many"],
        ["search", "bank", "--model", "m", "--store", "s", "--fusion", "mean"],
        ["index", "build", "--num_query_vectors", "2"],
        ["corpus", "export", "store"],
        ["encode", "--model", "m", "--output", "o"],
        ["serve", "--model", "m", "--store", "s", "--max-k", "0"],
        ["train"],
        ["train", "--lernrate", "1"],
        ["train", "--base_model", "m", "--dataset", "d"],
        [],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_no_traceback(wrong, capsys):
    code, said, errors = run(capsys, *wrong)
    assert code == 2 and "Traceback" not in errors
    assert "Error" in errors or (not wrong and "Usage" in said + errors)


def test_a_wrong_limit_of_the_service_is_named(capsys):
    _, _, errors = run(capsys, "serve", "--model", "m", "--store", "s", "--max-k", "30000")
    assert "max_documents is 20000, but k may be 30000" in " ".join(errors.split())


@pytest.mark.parametrize(
    "failing",
    [
        ["corpus", "verify", "./nowhere"],
        ["dataset", "own", "--source", "nowhere.jsonl", "--output", "out"],
        ["push", "dataset", "nowhere", "org/name", "--dry-run"],
        ["push", "dataset", "nowhere", "name", "--dry-run"],
        ["train", "nowhere.yaml"],
    ],
    ids=" ".join,
)
def test_a_users_error_ends_with_1_in_at_most_two_lines(failing, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, said, errors = run(capsys, *failing)
    assert code == 1 and not said
    assert 1 <= len(errors.splitlines()) <= 2 and "Traceback" not in errors
    assert (errors.startswith("Error: ") and "name" in errors) or "nowhere" in errors


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, ImportError])
def test_errors_of_users_are_shown_as_such_and_others_are_not_hidden(error, capsys, monkeypatch):
    def fail(name: str) -> None:
        raise error("several\n\n  lines")

    monkeypatch.setattr("amer.hub.pull_folder", fail)
    assert run(capsys, "corpus", "verify", "store")[::2] == (
        1, "Error: several lines\nTo see the traceback: amer --debug ...\n"
    )  # fmt: skip
    with pytest.raises(error):
        amer("corpus", "verify", "store")

    def break_down(name: str) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("amer.hub.pull_folder", break_down)
    with pytest.raises(RuntimeError):
        main(["corpus", "verify", "store"])


def test_a_process_ends_as_the_command_does_and_debug_shows_the_traceback(tmp_path):
    quiet = process("corpus", "verify", tmp_path / "nowhere")
    assert quiet.returncode == 1 and quiet.stderr.startswith("Error: ") and "Traceback" not in quiet.stderr
    loud = process("--debug", "corpus", "verify", tmp_path / "nowhere")
    assert loud.returncode == 1 and "Traceback" in loud.stderr and "FileNotFoundError" in loud.stderr
    assert process("corpus", "export", "store").returncode == 2


def test_an_interrupted_command_ends_with_130_and_one_line(capsys, monkeypatch):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amer.hub.pull_folder", interrupted)
    assert run(capsys, "corpus", "verify", "store") == (130, "", "Interrupted.\n")


# ---------------------------------------------------------------------------------------------------------------- rest


def test_the_choices_and_defaults_shown_are_those_of_the_library():
    from amer.commands import corpus, dataset, options, search
    from amer.corpus.importing import EMBEDDING
    from amer.data.ambigqa import HUB
    from amer.data.synthetic import SETTINGS, TRANSFORMATIONS
    from amer.search.fusion import FUSIONS, FusionName
    from amer.search.index.faiss.presets import NAMES
    from amer.search.index.opening import COLLECTION

    def literals(command, name: str) -> set[str]:
        annotation = get_args(signature(command, eval_str=True).parameters[name].annotation)[0]
        return {text for part in (annotation, *get_args(annotation)) for text in get_args(part) or [part]} & {
            text for part in (annotation, *get_args(annotation)) for text in get_args(part) if isinstance(text, str)
        }

    assert literals(search.search, "fusion") == set(get_args(FusionName)) == set(FUSIONS)
    assert literals(dataset.synthetic, "transformation") == set(TRANSFORMATIONS)
    assert literals(dataset.synthetic, "setting") == set(SETTINGS)
    assert options.COLLECTION == COLLECTION
    assert signature(dataset.ambigqa).parameters["source"].default == HUB
    assert signature(corpus.import_store).parameters["embedding"].default == EMBEDDING
    (build,) = (command for command in get_command(app).commands["index"].commands.values() if command.name == "build")
    (preset,) = (option for option in build.params if option.name == "preset")
    assert all(name in preset.help for name in NAMES)


def test_every_limit_of_the_service_is_an_option_with_its_help_and_default():
    from dataclasses import fields

    from amer.service.settings import Settings

    options = {option.name: option for option in get_command(app).commands["serve"].params}
    for limit in fields(Settings):
        option = options[limit.name]
        assert option.opts == [f"--{limit.name.replace('_', '-')}"]
        assert (option.help, option.default) == (limit.metadata["help"], limit.default)


def test_all_fields_of_a_training_are_listed(capsys):
    assert amer("train", "--fields") == 0
    shown = capsys.readouterr().out
    assert "usage: amer train" in shown
    assert all(f"--{field}" in shown for field in ("num_query_vectors", "max_eval_queries", "learning_rate"))


def test_a_training_gets_its_arguments_as_they_are(monkeypatch, tmp_path):
    from amer.trainer import run

    (tmp_path / "some.yaml").write_text("base_model: base\ndataset: data\nseed: 1\n")
    given = []
    monkeypatch.setattr(run, "train", lambda *settings: given.append(settings))
    options = ["--store", "store", "--eval_ks", "1", "5", "--seed", "3", "--debug", "underflow_overflow", "--no_cuda"]
    amer("train", tmp_path / "some.yaml", *options[:-1])
    ((model, data, args),) = given
    assert (model.base_model, data.dataset, data.store, data.eval_ks, args.seed) == (
        "base",
        "data",
        "store",
        [1, 5],
        3,
    )
    assert args.debug


def test_shells_complete_commands(tmp_path):
    shown = process(_AMER_COMPLETE="complete_bash", COMP_WORDS="amer cor", COMP_CWORD="1")
    assert shown.stdout.split() == ["corpus"]
    # Else the shell is looked for among the parents, where a Makefile has sh.
    named = process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_AMER_COMPLETE" in named.stdout


def test_the_console_script_is_this_command():
    scripts = [script.value for script in entry_points(group="console_scripts", name="amer")]
    text = (ROOT / "setup.cfg").read_text()
    assert "amer = amer.commands:main" in text and scripts in ([], ["amer.commands:main"])


def test_a_parameter_that_is_a_dataclass_needs_nothing_but_its_fields(capsys):
    with pytest.raises(typer.BadParameter, match="max_questions must be positive"):
        amer("serve", "--model", "m", "--store", "s", "--max-questions", "-1")
