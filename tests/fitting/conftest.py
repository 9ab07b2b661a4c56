"""Questions about a hundred small documents, as a user has them in two files."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

ADJECTIVES = "red blue old new big small fast slow warm cold".split()
NOUNS = "river bank mouse spring table house plane wheel stone glass".split()


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder of `pairs.jsonl` and `docs.jsonl`."""
    folder = tmp_path_factory.mktemp("files")
    things = [f"{adjective} {noun}" for adjective, noun in product(ADJECTIVES, NOUNS)]
    documents = [{"id": f"d{i}", "title": thing, "text": f"all about the {thing}"} for i, thing in enumerate(things)]
    pairs = [{"query": f"find the {thing}", "positives": [f"d{i}"]} for i, thing in enumerate(things)]
    for name, records in (("docs", documents), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder
