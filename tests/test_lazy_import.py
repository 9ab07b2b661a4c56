"""`import amer` is cheap: what is heavy waits until it is used."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "faiss", "datasets", "numpy", "pyarrow")


def loaded_by(statement: str) -> list[str]:
    """Which of the heavy packages a fresh process has loaded after the statement."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import amer; amer.__version__; dir(amer)") == []


def test_datasets_and_stores_are_read_and_published_without_pytorch():
    names = "from amer.corpus import DocumentStore, write_store; from amer.data import load_dataset_dir, verify_folder"
    assert loaded_by(f"{names}; from amer.hub import pull_folder, push_folder") == ["numpy", "pyarrow"]


def test_a_name_loads_what_it_needs():
    assert "torch" in loaded_by("from amer import Searcher")
