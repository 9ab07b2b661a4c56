"""The commands of the Makefile and the documents start from a clone, without further settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ["amer", "experiments.reproduce", "experiments.sweep", "experiments.synthetic"]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_a_module_shows_its_help(module):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    assert "usage" in shown.lower()
