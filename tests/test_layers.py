"""Imports run downwards: no circle between modules, and nothing imports from a layer above its own."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "amer": "amer",
    "benchmarks": "benchmarks",
    "experiments": "experiments",
    "hub_cards": "amer.hub_cards",
    "modeling_amer": "modeling_amer",
    "trainer": "amer.trainer",
}
GROUND = ("modeling_amer", "amer")
LAYERS = (  # the lowest first; what stands in no other lies on the ground
    "amer.corpus",
    "amer.search",
    "amer.integrations",
    "amer.baselines",
    "amer.data",
    "amer.evaluation",
    "amer.service",
    "amer.hub_cards",
    "amer.trainer",
    "amer.fitting",
    "amer.commands",
    "experiments",
    "benchmarks",
)

pytestmark = pytest.mark.skipif(not (ROOT / "amer").is_dir(), reason="reads the sources of a clone")


def modules() -> dict[str, Path]:
    """Name -> file of every module; the links `amer/trainer` and `amer/hub_cards` are not followed."""
    found = {}
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


def imported_names(source: str, package: str) -> Iterable[str]:
    """Every name that a module imports, anywhere in it: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules of the project that it imports."""
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = {
            target for imported in imported_names(file.read_text(), package) if (target := _module(imported, files))
        }
    return graph


def _module(name: str, files: Mapping[str, Path]) -> str:
    """The module that an imported name is, or is found in; nothing where it is not of the project."""
    for short, package in FOLDERS.items():  # `trainer` and `amer.trainer` are one
        if name == short or name.startswith(f"{short}."):
            name = package + name.removeprefix(short)
            break
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name


def layer(module: str) -> int:
    """How high a module lies; `python -m amer` is the command."""
    module = "amer.commands" if module == "amer.__main__" else module
    for height, name in enumerate(LAYERS, start=1):
        if module == name or module.startswith(f"{name}."):
            return height
    assert module.partition(".")[0] in GROUND
    return 0


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    return [f"{name} -> {target}" for name in graph for target in graph[name] if layer(target) > layer(name)]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, if there is any."""
    try:
        TopologicalSorter({name: targets - {name} for name, targets in graph.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return imports(modules())


def test_every_folder_is_read(graph):
    for name in ("modeling_amer.modeling_amer", "amer.files", "amer.trainer.trainer", "amer.hub_cards.rendering"):
        assert name in graph
    assert "modeling_amer.probe_amer" in graph["modeling_amer.modeling_amer"]  # under TYPE_CHECKING


def test_no_modules_import_each_other_in_a_circle(graph):
    assert circle(graph) == []


def test_no_import_runs_upward(graph):
    assert upward(graph) == []


def test_circles_and_upward_imports_are_found_in_functions_and_under_type_checking(tmp_path):
    sources = {
        "amer.files": "def read():\n    from amer.corpus.store import DocumentStore\n",
        "amer.corpus.store": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import amer.files\n",
        "amer.trainer.losses": "from . import matching\nfrom trainer.arguments import Arguments\n",
        "amer.trainer.matching": "import torch\n",
        "amer.trainer.arguments": "import amer.files.path\n",
    }
    files = {name: tmp_path / f"{name}.py" for name in sources}
    for name, source in sources.items():
        files[name].write_text(source)
    graph = imports(files)
    assert graph["amer.trainer.losses"] == {"amer.trainer.matching", "amer.trainer.arguments"}
    assert graph["amer.trainer.arguments"] == {"amer.files"}
    assert upward(graph) == ["amer.files -> amer.corpus.store"]
    assert set(circle(graph)) == {"amer.files", "amer.corpus.store"}
