"""What the builders share; run as a program, `test_building.py FOLDER`, this file is the builds that get killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from amer.corpus import open_documents
from amer.data import build_custom, build_wikipedia
from amer.data.answer_matching import normalise_answer
from amer.data.building import DroppedRecords, SourceQuestion, divide, unseen, usable
from amer.data.gold import Question
from amer.files import atomic_directory, atomic_write
from amer.text_lines import Place

FIXTURES = Path(__file__).parent / "fixtures"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
PLACE = Place(Path("folder") / "file.jsonl", "line", 3)


class Everything:
    """Finds all documents."""

    name = "everything"

    def __init__(self, size: int) -> None:
        self.rows = np.arange(size)

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.tile(self.rows[:k], (len(texts), 1))
        return rows, np.ones(rows.shape, dtype=np.float32)


def asked(*queries: str, answers: Sequence[list[str]] = (["a"], ["b"])) -> list[SourceQuestion]:
    return [
        SourceQuestion(Question(f"q{number}", query, list(answers), [query]), PLACE._replace(number=number))
        for number, query in enumerate(queries)
    ]


def test_answers_are_compared_as_they_are_found():
    answers = [["José", "jose\u0301", " "], ["JOSÉ"], ["Ana", "The Ana"], ["the ana", "ANA", ""]]
    drops = DroppedRecords()
    (kept,) = usable(asked("who", answers=answers), drops)
    assert kept.question.answers == [["José"], ["Ana", "The Ana"]]
    where = {"file": "file.jsonl", "line": 0, "query_id": "q0"}
    merged = "answer with the aliases of another, merged"
    assert drops.records == [
        {"reason": "empty alias", **where, "alias": " "},
        {"reason": merged, **where, "aliases": ["JOSÉ"]},
        {"reason": "empty alias", **where, "alias": ""},
        {"reason": merged, **where, "aliases": ["the ana", "ANA", ""]},
    ]
    assert drops.counts() == {merged: 2, "empty alias": 2}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([["a"]], "fewer than 2 distinct answers"),
        ([["a"], ["A"]], "fewer than 2 distinct answers"),
        ([["a"], ["b"], ["c"], ["d"]], "more than 3 distinct answers"),
        ([["a"], ["b"], [""]], "answer without an alias"),
        ([["a"], ["b"], []], "answer without an alias"),
        ([["a"], ["b"], ["c"]], None),
    ],
)
def test_a_question_goes_for_one_reason(answers, reason):
    drops = DroppedRecords()
    kept = usable(asked("who", answers=answers), drops, least=2, most=3)
    assert [one.question.query_id for one in kept] == ([] if reason else ["q0"])
    assert [record["reason"] for record in drops.records][-1:] == ([reason] if reason else [])


def test_a_share_is_the_same_in_any_order_and_grows_with_the_fraction():
    questions = asked(*(f"What is {number}?" for number in range(50)))
    chosen, others = divide(questions, 0.3, "salt")
    assert (len(chosen), len(others)) == (15, 35)
    assert divide(questions[::-1], 0.3, "salt")[0] == chosen[::-1]
    more, _ = divide(questions, 0.4, "salt")
    assert [one for one in more if one in chosen] == chosen
    assert divide(questions, 0.3, "pepper")[0] != chosen
    assert chosen == sorted(chosen, key=lambda one: one.place.number), "in the order they came"


@pytest.mark.parametrize(
    ("fraction", "size", "expected"), [(0.07, 100, 7), (0.1, 31, 4), (0.1, 1, 1), (0.5, 5, 3), (0, 9, 0)]
)
def test_a_share_is_rounded_up(fraction, size, expected):
    assert len(divide(asked(*map(str, range(size))), fraction, "salt")[0]) == expected


def test_a_question_of_the_test_set_is_known_by_its_words():
    drops = DroppedRecords()
    kept = unseen(asked("who  WON the cup", "Who won the cup?", "Who won the cups?"), asked("Who won the cup?"), drops)
    assert [one.question.query_id for one in kept] == ["q2"]
    assert [record["query_id"] for record in drops.records] == ["q0", "q1"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("writing", [atomic_write, atomic_directory])
def test_a_build_leaves_what_another_process_is_writing_and_removes_what_one_has_left(tmp_path, writing):
    source = tmp_path / "questions.jsonl"
    lines = [json.dumps({"query": f"question {number}", "positives": [f"text {number}"]}) for number in range(20)]
    source.write_text("\n".join(lines))
    out = tmp_path / "out"
    folders = [out, out / "documents", out / "work"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / f".{'0' * 32}.left").touch()
    with ExitStack() as others:  # a lock excludes other descriptors of this process as it excludes other processes
        alive = [others.enter_context(writing(folder / "store")) for folder in folders]
        build_wikipedia(out, FIXTURES / "chunked_wikipedia", show_progress_bar=False)
        build_custom(out, source)
        assert all(path.exists() for path in alive)
        assert [path for folder in folders for path in folder.glob(".*")] == alive


@pytest.mark.kill
def test_builds_killed_at_any_moment_go_on_to_the_same_bytes(tmp_path):
    """Every step of files is tried once with a process that dies there."""
    subprocess.run([sys.executable, __file__, str(tmp_path)], env=ENVIRONMENT, check=True, timeout=120)
    for name, files, steps in (("wikipedia", 4, 25), ("own", 3, 25)):
        whole = contents(tmp_path / name / "whole")
        killed = sorted((tmp_path / name).glob("killed-*"))
        assert len(whole) == files
        assert len(killed) > steps
        for folder in killed:
            assert contents(folder) == whole, folder


def builds(folder: Path) -> dict[str, Callable[[Path], None]]:
    """What gets killed, by name."""
    build_wikipedia(folder / "corpus", FIXTURES / "chunked_wikipedia", show_progress_bar=False)
    documents = open_documents(folder / "corpus" / "documents")
    found = {"documents": documents, "searches": [Everything(documents.num_rows)]}
    row = {"query": "Who was born in Port Ost?", "answers": ["Lio Marsh", "Ada Quill"]}
    (folder / "own.jsonl").write_text(json.dumps(row) + "\n")
    normalise_answer("imports in this process what every build would")
    return {
        "wikipedia": lambda path: build_wikipedia(path, FIXTURES / "chunked_wikipedia", show_progress_bar=False),
        "own": lambda path: build_custom(path, folder / "own.jsonl", test_fraction=0, validation_fraction=0, **found),
    }


def lives(build: Callable[[Path], None], path: Path, die_at: int | None) -> bool:
    """Build in a fork of this process, which dies when it touches files for the `die_at`-th time; whether it lived."""
    child = os.fork()
    if child == 0:
        touches = count()

        def die(event: str, arguments: tuple) -> None:
            changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
            if (changes or (event == "open" and "w" in str(arguments[1]))) and next(touches) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        build(path)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def kill_everywhere(folder: Path) -> None:
    for name, build in builds(folder).items():
        if not lives(build, folder / name / "whole", None):
            sys.exit(f"a build of {name} that nobody killed has failed")
        for step in count():
            path = folder / name / f"killed-{step}"
            if lives(build, path, step):
                break
            if not lives(build, path, None):
                sys.exit(f"the build of {name} killed at step {step} does not go on")


if __name__ == "__main__":
    kill_everywhere(Path(sys.argv[1]))
