"""The MRecall metric as a Space: `evaluate` loads it by name, and its page computes its own examples."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

import amer.evaluation
from tests.hub.conftest import loopback_hub

pytestmark = pytest.mark.server

FOLDER = Path(amer.evaluation.__file__).parent / "metrics" / "mrecall"
PUSH = "import sys; from amer.commands import main; main(['push', *sys.argv[1:]])"

pytest.importorskip("evaluate")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A Hub with the metric on it."""
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        running.run(PUSH, "metric", FOLDER, "org/mrecall", project=True)
        yield running


@pytest.fixture
def cases():
    """The Space's own test cases."""
    return runpy.run_path(str(FOLDER / "tests.py"))["test_cases"]


def test_evaluate_loads_it_by_name_and_it_gives_the_figures_of_its_readme_and_its_cases(space, cases):
    load = """
    import json, sys
    import evaluate
    metric = evaluate.load("org/mrecall")
    for case in json.loads(sys.argv[1]):
        print(json.dumps(metric.compute(predictions=case["predictions"], references=case["references"], k=case["k"])))
    """
    readme = {"predictions": [["a", "x", "b"]], "references": [[["a", "c"], ["b"]]], "k": 2}
    asked = [{**readme, "result": {"mrecall": 0.0, "recall": 0.5}}, *cases]
    assert "# {'mrecall': 0.0, 'recall': 0.5}" in (FOLDER / "README.md").read_text()
    figures = space.run(load, json.dumps(asked)).stdout.splitlines()
    assert len(figures) == len(asked) >= 4
    for case, line in zip(asked, figures, strict=True):
        assert json.loads(line) == pytest.approx(case["result"])


def test_the_space_has_what_a_space_needs(space):
    repo, files = space.repo("org/mrecall", "space"), space.files("org/mrecall", repo_type="space")
    assert repo.private and repo.sdk == "gradio"
    card = files["README.md"].decode()
    assert "\nsdk: gradio\n" in card and "\napp_file: app.py\n" in card and "\n- metric\n" in card
    assert 'evaluate.load("org/mrecall")' in card
    python = {name for name in files if name.endswith(".py")}
    assert set(files) == {".gitattributes", "README.md", "requirements.txt"} | python
    assert python == {"app.py", "mrecall.py", "tests.py"}


PAGE = """
import json, runpy, sys, types

class Interface:
    def __init__(self, **options):
        pages.append(options)

class Error(Exception):
    pass

pages = []
gradio = types.ModuleType("gradio")
gradio.Interface, gradio.Error = Interface, Error
gradio.Textbox = gradio.Number = gradio.JSON = lambda **options: options
sys.modules["gradio"] = gradio

from huggingface_hub import snapshot_download
folder = snapshot_download("org/mrecall", repo_type="space")
sys.path.insert(0, folder)  # as `python app.py` does
runpy.run_path(f"{folder}/app.py")
(page,) = pages
print(json.dumps([page["fn"](*example) for example in page["examples"]]))
for wrong in (('[["a"]]', "[[]]", 1), ('[["a"]]', '[[["a"]]]', 2), ("no JSON", "[]", 1), ("1", "2", 1)):
    try:
        page["fn"](*wrong)
    except Error as error:
        print(error)
print(page["article"].splitlines()[-1])
"""


def test_its_page_computes_its_examples_and_shows_what_is_wrong(space, cases):
    """With a stand-in for gradio, which is not installed here."""
    lines = space.run(PAGE).stdout.splitlines()
    for figures, case in zip(json.loads(lines[0]), cases, strict=True):
        assert figures == pytest.approx(case["result"])
    no_target, k, no_json = lines[1:4]
    assert "at least one target" in no_target and "k must lie in 1..1" in k and "Expecting value" in no_json
    assert len(lines) == 6


def test_a_space_of_another_name_is_refused(hub):
    result = hub.run(PUSH, "metric", FOLDER, "org/recall", project=True, check=False)
    assert "has no recall.py, which evaluate.load('org/recall') will look for" in result.stderr
    assert hub.requests == []
