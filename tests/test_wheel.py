"""What `pip install` brings: the built wheel in an environment of its own, without extras and far from the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from amer.corpus import write_store
from amer.data import RetrievalDataset, save_dataset_dir
from amer.files import read_json
from tests.conftest import DIM

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SOURCES = ("amer", "hub_cards", "modeling_amer", "trainer", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml")
TRAINING = {
    "max_steps": 2,
    "num_query_vectors": 2,
    "num_random_negatives": 2,
    "per_device_train_batch_size": 4,
    "lora_r": 4,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}
SEARCH = """
import sys
from amer import Searcher

print(*(hit.id for hit in Searcher.from_pretrained(*sys.argv[1:]).search("question", k=3)[0]))
"""


def run(*command: object, cwd: Path) -> str:
    """What a command prints, run where the clone cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needed_by(package: Distribution) -> dict[str, Distribution]:
    """All distributions that one needs without extras, directly or not, by their canonical names."""
    found, waiting = {}, [package]
    while waiting:
        for requirement in map(Requirement, waiting.pop().requires or []):
            name = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and name not in found:
                found[name] = distribution(name)
                waiting.append(found[name])
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist made from the sources, and the wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    for name in (*SOURCES, "setup.cfg"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        links = {"symlinks": True, "ignore": shutil.ignore_patterns("__pycache__")} if copy is shutil.copytree else {}
        copy(ROOT / name, folder / name, **links)
    code = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    sdist = folder / run(sys.executable, "-c", code, folder, cwd=folder).splitlines()[-1]
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    options = ("-q", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def python(built, tmp_path_factory) -> Path:
    """The interpreter of a new environment: the wheel, and of this one's packages those the wheel needs."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    options = ("-q", "--no-index", "--no-deps")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, built[1], cwd=folder)
    here = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (info,) = here.glob("amer-*.dist-info")
    for package in needed_by(Distribution.at(info)).values():
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (here / name).exists():  # a folder may be of several distributions
                (here / name).symlink_to(package.locate_file(name))
    return python


def modules(names: list[str]) -> list[str]:
    """The Python files among the names of an archive, sorted."""
    return sorted(name for name in names if name.endswith((".py", ".pyi")))


def test_sdist_and_wheel_hold_every_module_once(built):
    with tarfile.open(built[0]) as archive:
        sdist = [name.partition("/")[2] for name in archive.getnames()]
    with zipfile.ZipFile(built[1]) as archive:
        wheel = archive.namelist()
    assert modules(sdist) == modules(wheel)
    clone = [path.relative_to(ROOT).as_posix() for name in ("amer", "modeling_amer") for path in walk(ROOT / name)]
    assert modules(wheel) == modules(clone)
    assert {PurePosixPath(name).parts[0] for name in wheel if ".dist-info/" not in name} == {"amer", "modeling_amer"}


def walk(folder: Path) -> list[Path]:
    """All files below a folder, those behind symbolic links too."""
    return [Path(path, file) for path, _, files in os.walk(folder, followlinks=True) for file in files]


def test_the_wheel_holds_what_is_no_python(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    trainer, data = ("amer/trainer/configs",), ("amer/data/wordnet_extract", "amer/evaluation/metrics")
    for folder in (*trainer, *data, "amer/hub_cards/templates", "amer/service/page"):
        files = {path.relative_to(ROOT).as_posix() for path in walk(ROOT / folder) if "__pycache__" not in path.parts}
        assert files and files <= names
    assert {"amer/py.typed", "amer/trainer/py.typed", "amer/hub_cards/py.typed", "modeling_amer/py.typed"} <= names
    assert not any("__pycache__" in name for name in names)


def test_names_that_others_have_too_are_not_installed(python, tmp_path):
    """`trainer` is another package of the Python index: both in one environment would overwrite each other."""
    code = "import importlib.util as u, amer; print(*map(u.find_spec, ('trainer', 'hub_cards')), amer.__file__)"
    first, second, file = run(python, "-c", code, cwd=tmp_path).split()
    assert (first, second) == ("None", "None")
    assert file.startswith(str(python.parents[1])) and not file.startswith(str(ROOT))


def test_the_wheel_imports_without_extras(python, tmp_path):
    names = ("amer.corpus", "amer.data", "amer.evaluation", "amer.hub_cards", "amer.search", "amer.trainer")
    code = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; import faiss"
    with pytest.raises(AssertionError, match="No module named 'faiss'"):
        run(python, "-c", code, *names, cwd=tmp_path)


def test_wordnet_is_built_from_the_extract_in_the_wheel(python, tmp_path):
    sizes = "num_train=3, num_validation=2, num_test=2, corpus_size=60"
    code = f"import sys; from amer.data import build_wordnet; build_wordnet(sys.argv[1], {sizes})"
    run(python, "-c", code, tmp_path / "senses", cwd=tmp_path)
    assert (tmp_path / "senses" / "dataset" / "train.parquet").is_file()


def test_the_wheel_trains_and_searches(python, llama, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(12, DIM)).astype("float32")
    ids = [f"d{row}" for row in range(12)]
    documents = pa.table({"id": ids, "title": ids, "text": ids})
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    write_store(tmp_path / "store", documents, unit, {"name": "hand-made"})
    questions = RetrievalDataset(
        query_ids=[f"q{row}" for row in range(6)],
        queries=[f"question {row}" for row in range(6)],
        targets=[[[f"d{2 * row}"], [f"d{2 * row + 1}"]] for row in range(6)],
        answers=[[] for _ in range(6)],
    )
    save_dataset_dir(tmp_path / "dataset", {"train": questions}, {})
    folders = {name: tmp_path / name for name in ("dataset", "store")}
    options = {**TRAINING, **folders, "base_model": llama, "output_dir": tmp_path / "model"}
    run(python.with_name("amer"), "train", *(f"--{name}={value}" for name, value in options.items()), cwd=tmp_path)
    assert read_json(tmp_path / "model" / "trainer_state.json")["global_step"] == 2
    found = run(python, "-c", SEARCH, tmp_path / "model", tmp_path / "store", cwd=tmp_path).split()
    assert len({*found}) == 3 and {*found} <= {*ids}


def test_the_command_is_installed(python, tmp_path):
    assert "Usage" in run(python.with_name("amer"), "--help", cwd=tmp_path)
