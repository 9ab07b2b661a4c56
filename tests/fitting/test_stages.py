"""What a terminal says of a long job."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from amer.fitting.stages import Stages, command_line


def test_a_stage_says_its_number_its_command_and_its_time():
    stream = io.StringIO()
    stages = Stages(Console(file=stream, width=40), 2)
    with stages.stage("First", ["dataset", "own", "--source", "my [file] of questions that is long.jsonl"]):
        pass
    with pytest.raises(KeyboardInterrupt), stages.stage("Second"):
        raise KeyboardInterrupt
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("1/2  First ─")
    assert lines[1] == "amer dataset own --source 'my [file] of questions that is long.jsonl'"
    assert lines[2].startswith("First: 0.0 s") and lines[3].startswith("2/2  Second") and len(lines) == 4
    assert list(stages.seconds) == ["First"]


def test_a_command_can_be_pasted_into_a_shell():
    assert command_line(["search", "what's up", "--k", "3"]) == """amer search 'what'"'"'s up' --k 3"""
