"""The reference of packages: small ones written by the tests, and three modules of the standard library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from amer.data import build_python_api, load_dataset_dir, python_api
from amer.files import read_json

REST = "The rest of the text explains {what} in eight words or even more."


def function(name: str, summary: str, rest: str) -> str:
    return f'def {name}(x, y=1):\n    """{summary}\n\n    {rest}\n    """\n\n'


def functions(count: int, prefix: str = "task") -> str:
    """So many that every split gets some."""
    return "".join(
        function(f"{prefix}{i}", f"Compute the {prefix} number {i}.", REST.format(what=f"{prefix} {i}"))
        for i in range(count)
    )


@pytest.fixture
def write_package(tmp_path, monkeypatch):
    """Write a package of one file or of several, importable by this process."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(name: str, **modules: str) -> None:
        (folder / name).mkdir()
        for module, source in modules.items():
            (folder / name / f"{module}.py").write_text(source)

    return write


def read(path: Path) -> tuple[dict[str, str], dict[str, str], list[dict[str, str]]]:
    """Texts by document, questions by document, what was dropped."""
    documents = {one["id"]: one["text"] for one in pq.read_table(path / "documents.parquet").to_pylist()}
    splits = load_dataset_dir(path / "dataset")
    questions = {}
    for split in splits.values():
        for target, query in zip(split.targets, split.queries, strict=True):
            questions[target[0][0]] = query
    dropped = [json.loads(line) for line in (path / "dropped.jsonl").read_text().splitlines()]
    return documents, questions, dropped


def reasons(dropped: list[dict[str, str]]) -> dict[str, str]:
    return {one["name"]: one["reason"] for one in dropped if "name" in one}


def test_entries_become_documents_and_questions(write_package, tmp_path):
    source = functions(60) + (
        "class Box:\n"
        '    """Hold one :class:`~fake.Thing` or *two*. With care.\n\n'
        '    It can be opened, closed, painted and sold to somebody else.\n    """\n'
        "    def open(self):\n"
        '        """Open the ``Box`` with a key.\n\n        A key is needed, time, and a little luck.\n        """\n'
        "    def _hidden(self):\n"
        '        """Hide the box from all people.\n\n        Nobody shall see it, not even in dreams.\n        """\n'
    )
    write_package("fake", __init__=source)
    build_python_api(tmp_path / "set", ["fake"])
    documents, questions, _ = read(tmp_path / "set")
    assert documents["fake.Box"] == (
        "Box()\n\nWith care.\n\nIt can be opened, closed, painted and sold to somebody else."
    )
    assert questions["fake.Box"] == "Hold one fake.Thing or two."
    assert questions["fake.Box.open"] == "Open the Box with a key."
    assert documents["fake.task7"].startswith("task7(x, y=1)\n\nThe rest")
    assert "fake.Box._hidden" not in documents
    assert all(questions[name] not in documents[name] for name in questions)


def test_the_split_follows_the_hash_and_reserved_questions_are_not_there(write_package, tmp_path):
    write_package("fake", __init__=functions(200))
    build_python_api(tmp_path / "set", ["fake"])
    documents, questions, _ = read(tmp_path / "set")
    parts = {name: int(hashlib.sha1(name.encode()).hexdigest(), 16) % 20 for name in documents}
    reserved = {name for name, part in parts.items() if part == 0}
    assert reserved and questions.keys() == documents.keys() - reserved
    splits = load_dataset_dir(tmp_path / "set" / "dataset")
    assert {parts[name] for name in splits["test"].query_ids} == {1, 3}
    assert {parts[name] for name in splits["validation"].query_ids} == {2}
    assert {parts[name] for name in splits["train"].query_ids} == {*range(4, 20)}
    written = "".join(documents.values()) + (tmp_path / "set" / "dropped.jsonl").read_text()
    assert not [name for name in reserved if f"task number {name.removeprefix('fake.task')}." in written]


def test_what_is_not_unique_is_dropped(write_package, tmp_path):
    one_text = "One text for all of these classes, {name}, as a template makes it."
    source = (
        functions(60)
        + function("twin", "Compute the task number 5.", REST.format(what="a twin"))
        + "".join(
            f'class Model{i}:\n    """Model of kind {"abc"[i]} for words.\n\n    '
            f'{one_text.format(name=f"Model{i}")}\n    """\n'
            for i in range(3)
        )
        + function("bare", "Only a summary line here.", "")
        + function("short", "Hm.", REST.format(what="nothing"))
        + function("code", "Args: x and y, two numbers.", REST.format(what="arguments"))
    )
    write_package("fake", __init__=source)
    build_python_api(tmp_path / "set", ["fake"])
    documents, _, dropped = read(tmp_path / "set")
    assert reasons(dropped) == {
        "fake.twin": "summary line of several",
        "fake.task5": "summary line of several",
        **{f"fake.Model{i}": "text of several" for i in range(3)},
        "fake.bare": "nothing but a summary line",
        "fake.short": "no summary line",
        "fake.code": "no summary line",
    }
    assert not {*reasons(dropped)} & {*documents}
    assert read_json(tmp_path / "set" / "dataset" / "dataset.json")["drops"] == {
        "no summary line": 2, "nothing but a summary line": 1, "summary line of several": 2, "text of several": 3,
    }  # fmt: skip


def test_an_object_has_its_shortest_path_and_inherits_no_docstring(write_package, tmp_path):
    inner = functions(60) + (
        'class Base:\n    def go(self):\n        """Go to another place now.\n\n        '
        'By foot, by train, by ship, or not at all.\n        """\n'
        "class Child(Base):\n    def go(self):\n        pass\n"
    )
    write_package("fake", __init__="from fake.deep.inner import task1\nfrom json import loads\n", other="")
    folder = tmp_path / "packages" / "fake" / "deep"
    (folder / "deeper").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text(inner)
    (folder / "deeper" / "__init__.py").write_text("")
    (folder / "deeper" / "inside.py").write_text("raise RuntimeError('not imported: too deep')")
    build_python_api(tmp_path / "set", ["fake"])
    documents, _, dropped = read(tmp_path / "set")
    assert "fake.task1" in documents and "fake.deep.inner.task1" not in documents
    assert "fake.deep.inner.task2" in documents and "fake.deep.inner.Base.go" in documents
    assert "fake.deep.inner.Child.go" not in documents and "fake.loads" not in documents
    assert dropped == []


def test_signatures_tell_nothing_of_the_machine(write_package, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "s3cret")
    defaults = "env=os.environ, home=os.path.expanduser('~'), module=os, it=object(), n=1, s='a', t=(1, None), k=int"
    source = (
        "import os\nassert 'MY_PASSWORD' not in os.environ\n"
        + functions(60)
        + f'def run({defaults}):\n    """Run a program of the user.\n\n    {REST.format(what="a program")}\n    """\n'
    )
    write_package("fake", __init__=source)
    build_python_api(tmp_path / "set", ["fake"])
    documents, _, dropped = read(tmp_path / "set")
    signature = "run(env=..., home=..., module=..., it=..., n=1, s='a', t=(1, None), k=<class 'int'>)"
    assert documents["fake.run"].partition("\n")[0] == signature
    assert dropped == []


def test_packages_that_misbehave_are_reported(write_package, tmp_path):
    write_package(
        "fake",
        __init__=functions(60),
        breaks="raise RuntimeError('no luck')",
        exits="import sys; sys.exit(3)",
        speaks="print('hello there')\n" + functions(1, "speech"),
        connects="import socket; socket.create_connection(('127.0.0.1', 9))",
        starts="import subprocess; subprocess.run(['true'])",
        writes="import os; os.write(1, b'past Python')",
        test_fake="raise RuntimeError('test suites are not imported')",
        __main__="raise RuntimeError('programs are not run')",
    )
    for name in ("tests", "this", "demo"):
        (tmp_path / "packages" / "fake" / f"{name}.py").write_text("raise RuntimeError('left out')")
    write_package("dies", __init__="import os; os._exit(7)")
    write_package("sleeps", __init__="import time; time.sleep(600)")
    build_python_api(tmp_path / "set", ["fake", "dies"])
    documents, _, dropped = read(tmp_path / "set")
    problems = {one["module"]: one["problem"] for one in dropped if one["reason"] == "problem when imported"}
    assert problems == {
        "fake.breaks": "raised RuntimeError: no luck",
        "fake.exits": "raised SystemExit: 3",
        "fake.speaks": "printed 'hello there\\n'",
        "fake.connects": "raised PermissionError: an import may not use socket.getaddrinfo",
        "fake.starts": "raised PermissionError: an import may not use subprocess.Popen",
        "fake": "printed 'past Python'",
        "dies": "ended its process with code 7: ",
    }
    assert "fake.speaks.speech0" in documents and "fake.task1" in documents
    with pytest.raises(ValueError, match="no question was left"):
        build_python_api(tmp_path / "slow", ["sleeps"], time_limit=2)
    assert "took more than 2 s" in (tmp_path / "slow" / "dropped.jsonl").read_text()


def test_a_killed_build_goes_on_and_a_finished_one_stays(write_package, tmp_path, monkeypatch):
    write_package("fake", __init__=functions(60))
    write_package("other", __init__=functions(60, "chore"))
    real, ran = python_api._run, []

    def run(name, *args):
        ran.append(name)
        if name == "other" and ran.count("other") == 1:
            raise KeyboardInterrupt
        return real(name, *args)

    monkeypatch.setattr(python_api, "_run", run)
    with pytest.raises(KeyboardInterrupt):
        build_python_api(tmp_path / "set", ["fake", "other"], num_workers=1)
    build_python_api(tmp_path / "set", ["fake", "other"], num_workers=1)
    build_python_api(tmp_path / "set", ["fake", "other"], num_workers=1)
    assert ran == ["fake", "other", "other"]
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == [
        "dataset", "documents.parquet", "dropped.jsonl",
    ]  # fmt: skip
    with pytest.raises(FileExistsError, match="other arguments"):
        build_python_api(tmp_path / "set", ["fake"])


@pytest.mark.parametrize("packages", [[], ["nowhere_to_be_found"], ["sklearn.linear_model"], ["scikit-learn"]])
def test_packages_that_are_not_there_are_refused(tmp_path, packages):
    with pytest.raises(ValueError, match="as in `import`"):
        build_python_api(tmp_path / "set", packages)
    with pytest.raises(TypeError, match="give a list"):
        build_python_api(tmp_path / "set", "json")


def test_three_modules_of_the_standard_library_twice_the_same(tmp_path):
    for name in ("one", "two"):
        build_python_api(tmp_path / name, ["json", "textwrap", "statistics"])
    documents, questions, dropped = read(tmp_path / "one")
    assert "Serialize obj to a JSON formatted str." not in documents["json.dumps"]
    assert "skipkeys" in documents["json.dumps"]
    assert "statistics.mode" in documents and "textwrap.dedent" in documents
    assert not [one for one in dropped if one["reason"] == "problem when imported"]
    assert len(questions) >= 15
    for file in [file for file in (tmp_path / "one").rglob("*") if file.is_file()]:
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
    arguments = read_json(tmp_path / "one" / "dataset" / "dataset.json")["arguments"]
    assert arguments["packages"].keys() == {"json", "textwrap", "statistics"}
    assert set(arguments["packages"].values()) == {arguments["python"]}
