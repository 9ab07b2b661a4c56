"""What `amer fit` cannot use is refused before anything is built."""

from __future__ import annotations

import io
import json

import pytest
import typer
from rich.console import Console

from amer.fitting import Settings, fit
from tests.commands.running import amer
from tests.conftest import save_tiny_encoder

pytest.importorskip("sentence_transformers")


def test_an_encoder_that_cannot_be_used_is_refused_before_anything_is_built(files, tmp_path):
    (tmp_path / "encoder").mkdir()
    encoder = save_tiny_encoder(tmp_path / "encoder", pooling="cls")
    settings = Settings(tmp_path / "out", str(files / "pairs.jsonl"), None, encoder)
    with pytest.raises(ValueError, match="pools by 'cls'"):
        fit(settings, Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_too_few_questions_are_named(tiny_encoder, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "a", "positives": ["text"]}) + "\n")
    settings = Settings(tmp_path / "out", str(tmp_path / "pairs.jsonl"), None, tiny_encoder)
    with pytest.raises(ValueError, match="no question was left for train"):
        fit(settings, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    "arguments", [[], ["python-api", "--questions", "q.jsonl"], ["python-api", "--documents", "d.jsonl"]], ids=str
)
def test_what_excludes_each_other_is_a_wrong_command_line(arguments, tmp_path):
    with pytest.raises(typer.BadParameter):
        amer("fit", *arguments, "--output", tmp_path / "out")
