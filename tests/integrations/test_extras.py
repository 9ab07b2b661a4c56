"""A framework that is not there: what to install is said, and nothing else is loaded for it."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

MODULES = {
    "haystack": ("amer.integrations.haystack", "haystack"),
    "langchain": ("amer.integrations.langchain", "langchain_core"),
    "llama-index": ("amer.integrations.llama_index", "llama_index"),
    "mcp": ("amer.integrations.mcp", "mcp"),
    "qdrant": ("amer.search.index.qdrant", "qdrant_client"),
}
SETUP = Path(__file__).parents[2] / "setup.cfg"


def test_each_extra_brings_one_package():
    extras = ConfigParser()
    extras.read(SETUP)
    for extra in MODULES:
        assert len(extras["options.extras_require"][extra].split()) == 1


@pytest.mark.slow
def test_what_is_missing_is_named_with_its_extra():
    """One process for all of them: importing AMER's search takes seconds."""
    code = f"""
import sys
modules = {MODULES!r}
for module, package in modules.values():
    sys.modules[package] = None  # as if it were not installed
for extra, (module, package) in modules.items():
    try:
        __import__(module)
    except ImportError as error:
        print(extra, error)
loaded = {{package for _, package in modules.values() if sys.modules[package] is not None}}
print(loaded or "nothing")
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert shown.pop() == "nothing"
    for line, (extra, (_, package)) in zip(shown, MODULES.items(), strict=True):
        assert line.startswith(f"{extra} ") and f'needs {package}: pip install "amer[{extra}]"' in line
