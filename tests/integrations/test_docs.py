"""The code of docs/integrations.md runs, and shows what stands below it but for the documents' titles."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "integrations.md"
BLOCKS = re.compile(r"^## ([^\n]+)$|^```python\n(.*?)^```\n(?:\n^```\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PACKAGES = {
    "LangChain": "langchain_core",
    "LlamaIndex": "llama_index",
    "Haystack": "haystack",
    "DSPy": "dspy",
    "Qdrant": "qdrant_client",
    "LanceDB": "lancedb",
}


def sections() -> dict[str, list[tuple[str, str]]]:
    """The code of each section and what it shows."""
    found: dict[str, list[tuple[str, str]]] = {}
    title = ""
    for heading, code, output in BLOCKS.findall(DOCS.read_text()):
        title = heading or title
        if code:
            found.setdefault(title, []).append((code, output))
    return found


def parts_shown(shown: str) -> tuple[int, set[str]]:
    """How many lines there are, and what stands before their titles, but for Haystack's score."""
    lines = shown.splitlines()
    return len(lines), {re.sub(r"^\d\.\d+ ", "", line.partition(": ")[0]) for line in lines}


@pytest.fixture
def quickstart(folders, tmp_path, monkeypatch) -> None:
    """The tiny model and its store where the examples look for them."""
    (tmp_path / "quickstart").mkdir()
    for name, folder in folders._asdict().items():
        (tmp_path / "quickstart" / name).symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)


def test_every_section_with_code_is_run():
    assert set(sections()) == {*PACKAGES, "Agents: the Model Context Protocol"}  # that one by test_mcp.py


@pytest.mark.parametrize("title", PACKAGES)
def test_the_code_shows_what_stands_below_it(title, quickstart, capsys):
    if find_spec(PACKAGES[title]) is None:
        pytest.skip(f"needs {PACKAGES[title]}")
    blocks = sections()
    names: dict = {"__name__": "docs"}
    earlier = blocks["Qdrant"] if title == "LanceDB" else []  # whose names it goes on with
    for code, _ in earlier:
        exec(code, names)
    capsys.readouterr()
    for code, output in blocks[title]:
        exec(code, names)
        assert parts_shown(capsys.readouterr().out) == parts_shown(output)
