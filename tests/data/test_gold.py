"""The gold mapping, with real BM25; run as a program, `test_gold.py FOLDER`, this file is the run that gets killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from amer.data import gold
from amer.data.answer_matching import normalise_answer
from amer.data.gold import GoldMap, Question, map_gold
from amer.files import read_json

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
FILLER = "a film of the year, made in the land of rivers and shown to many".split()
DIRECTORS = [["Zack Snyder", "Z. Snyder"], ["José Padilha"], ["Ariel Schulman"]]


class Fixed:
    """A search that finds the same rows whatever it is asked, and remembers what that was."""

    def __init__(self, name: str, *rows: int) -> None:
        self.name = name
        self.rows = rows
        self.texts: list[str] = []

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        self.texts += texts
        rows = np.tile(np.array([*self.rows, *[-1] * k][:k], dtype=np.int64), (len(texts), 1))
        return rows, np.where(rows < 0, -np.inf, 1).astype(np.float32)


def corpus(texts: Sequence[str], title: str = "") -> pa.Table:
    ids = [f"d{row}" for row in range(len(texts))]
    return pa.table({"id": ids, "title": [title] * len(texts), "text": texts})


def map_quietly(*arguments, **options) -> GoldMap:
    return map_gold(*arguments, **options, show_progress_bar=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def build_bm25(documents: pa.Table, path: Path):
    pytest.importorskip("bm25s")
    from amer.baselines.bm25 import BM25

    return BM25.build(documents, path)


def test_an_answer_planted_anywhere_in_any_spelling_is_mapped(tmp_path):
    texts, expected = [], [[], [], []]
    for target, spellings in enumerate([["Zack Snyder", "Z. SNYDER"], ["Jose\u0301 Padilha"], ["(Ariel Schulman)"]]):
        for spelling in spellings:
            for place in range(len(FILLER) + 1):
                expected[target].append(f"d{len(texts)}")
                texts.append(" ".join([*FILLER[:place], spelling, *FILLER[place:]]))
    texts += [" ".join([*FILLER, near]) for near in ("Zack, Snyder", "Snyder Zack", "Jose Padilha", "Ariel Schulmann")]
    documents = corpus(texts)
    question = Question("q", "Who made a film?", DIRECTORS, ["film"])
    mapped = map_quietly([question], [build_bm25(documents, tmp_path / "bm25")], documents, tmp_path / "gold")
    assert mapped == GoldMap({"q": expected}, {})


def test_a_question_counts_only_with_a_document_for_every_answer(tmp_path):
    texts = ["film by Zack Snyder", "film by Ariel Schulman", "by José Padilha", "film by Z. Snyder, Ariel Schulman"]
    documents, search = corpus(texts), Fixed("some", 3, 1, 0)
    questions = [Question("two", "film?", DIRECTORS, ["film"]), Question("one", "film?", DIRECTORS[::2], ["film"])]
    mapped = map_quietly([*questions, Question("none", "x", [["x"], ["y"]], ["x"])], [search], documents, tmp_path)
    assert mapped.targets == {"one": [["d0", "d3"], ["d1", "d3"]]}
    assert mapped.unmapped == {"two": [1], "none": [0, 1]}
    assert list(mapped.unmapped) == ["two", "none"]
    assert {key: read_json(tmp_path / "gold.json")[key] for key in ("mapped", "unmapped")} == {
        "mapped": 1,
        "unmapped": 2,
    }


def test_every_text_of_a_question_is_searched_and_no_deeper_than_asked(tmp_path):
    documents = corpus(["snow in Oslo"] * 3 + ["rain in Bergen"] * 3)
    snippets = Question("q", "Where?", [["Oslo"], ["Bergen"]], ["snow", "rain"])
    question = snippets._replace(query_id="whole", searches=["snow in a town"])
    bm25 = build_bm25(documents, tmp_path / "bm25")
    mapped = map_quietly([snippets, question], [bm25], documents, tmp_path / "gold", depth=2)
    assert mapped == GoldMap({"q": [["d0", "d1"], ["d3", "d4"]]}, {"whole": [1]})


def test_candidates_of_all_searches_are_one_set_in_the_order_of_the_corpus(tmp_path):
    documents = pa.concat_tables([corpus(["x"] * 9).slice(0, 4), corpus(["x"] * 9).slice(4)])
    searches = [Fixed("one", 8, 3, 5), Fixed("two", 3, 0, 7, 6), Fixed("empty")]
    mapped = map_quietly([Question("q", "x", [["x"]], ["x", "x"])], searches, documents, tmp_path, depth=3)
    assert mapped.targets == {"q": [["d0", "d3", "d5", "d7", "d8"]]}


def test_an_answer_in_the_title_counts_as_the_title_is_retrieved_with_the_text(tmp_path):
    documents = pa.concat_tables([corpus(["he lives there"], title="Zack Snyder"), corpus(["he", "Snyder"]).slice(1)])
    mapped = map_quietly([Question("q", "x", DIRECTORS[:1], ["x"])], [Fixed("all", 0, 1)], documents, tmp_path)
    assert mapped.targets == {"q": [["d0"]]}


def test_random_mappings_are_those_of_plain_loops(tmp_path, monkeypatch):
    monkeypatch.setattr(gold, "PART", 7)
    chance = np.random.default_rng(0)
    texts = [" ".join(chance.choice(list("abcdefgh"), 3)) for _ in range(200)]
    questions = [
        Question(
            f"q{number}", "x", [["a b", "zz"], [str(chance.choice(list("cdz")))]], chance.choice(texts, 2).tolist()
        )
        for number in range(30)
    ]
    search = build_bm25(corpus(texts), tmp_path / "bm25")
    mapped = map_quietly(questions, [search], corpus(texts), tmp_path / "gold", depth=20)
    assert 5 < len(mapped.targets) < 25 and len(mapped.targets) + len(mapped.unmapped) == 30
    for question in questions:
        rows = sorted({row for text in question.searches for row in search.search([text], 20)[0][0].tolist()} - {-1})
        expected = [[f"d{row}" for row in rows if any(a in texts[row] for a in answer)] for answer in question.answers]
        if all(expected):
            assert mapped.targets[question.query_id] == expected
        else:
            assert mapped.unmapped[question.query_id] == [place for place in range(2) if not expected[place]]


def test_a_run_that_failed_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(gold, "PART", 2)
    documents = corpus(["red", "blue"])
    questions = [Question(f"q{number}", f"text {number}", [["red"]], [f"text {number}"]) for number in range(7)]
    whole = map_quietly(questions, [Fixed("search", 0, 1)], documents, tmp_path / "whole")
    failing, search = Fixed("search", 0, 1), Fixed("search", 0, 1)
    failing.search = lambda texts, k: search.search(texts, k) if "text 4" not in texts else 1 / 0
    with pytest.raises(ZeroDivisionError):
        map_quietly(questions, [failing], documents, tmp_path / "broken")
    assert not (tmp_path / "broken" / "gold.json").exists()
    assert map_quietly(questions, [search], documents, tmp_path / "broken") == whole
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert search.texts == [f"text {number}" for number in range(7)]
    assert map_quietly(questions, [search], documents, tmp_path / "broken") == whole
    assert len(search.texts) == 7  # what is finished is read


@pytest.mark.kill
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path):
    """Every step of files is tried once with a process that dies there."""
    subprocess.run([sys.executable, __file__, str(tmp_path)], env=ENVIRONMENT, check=True, timeout=120)
    whole = contents(tmp_path / "whole")
    assert len(whole) == 3
    killed = sorted(tmp_path.glob("killed-*"))
    assert len(killed) > 15
    for folder in killed:
        assert contents(folder) == whole, folder.name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"depth": 5}, "depth: there 6, now 5"),
        ({"searches": [Fixed("another", 0)]}, "searches: there ['search'], now ['another']"),
        ({"documents": corpus(["red", "green"])}, "documents_sha256"),
        ({"questions": [Question("q", "text", [["blue"]], ["text"])]}, "questions_sha256"),
    ],
)
def test_another_mapping_is_not_mixed_in(tmp_path, changes, named):
    call = {
        "questions": [Question("q", "text", [["red"]], ["text"])],
        "searches": [Fixed("search", 0)],
        "documents": corpus(["red", "blue"]),
        "folder": tmp_path,
        "depth": 6,
    }
    map_quietly(**call)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=re.escape(named)):
        map_quietly(**{**call, **changes})
    assert contents(tmp_path) == before


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        map_quietly([Question("q", "x", [["x"]], ["x"])], [Fixed("s")], corpus(["x"]), tmp_path)


def test_rows_of_another_corpus_are_refused(tmp_path):
    with pytest.raises(IndexError, match=r"0\.\.0"):
        map_quietly([Question("q", "x", [["x"]], ["x"])], [Fixed("s", 1)], corpus(["x"]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": []}, "no question"),
        ({"questions": [Question("q", "x", [["x"]], ["x"])] * 2}, "query_id 'q' is used twice"),
        (
            {"questions": [Question("q", "x", [["x"], ["y", ""]], ["x"])]},
            "question 'q': answer number 1 has the alias ''",
        ),
        ({"questions": [Question("q", "x", [], ["x"])]}, r"question 'q': the answers are \[\]"),
        ({"questions": [Question("q", "x", [["x"]], [])]}, r"question 'q' has the searches \[\]"),
        ({"questions": [Question("q", "x", [["x"]], "x")]}, "question 'q' has the searches 'x'"),
        ({"searches": []}, r"the searches are \[\]"),
        ({"searches": [Fixed("s"), Fixed("s")]}, r"the searches are \['s', 's'\]"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(tmp_path, changes, message):
    call = {"questions": [Question("q", "x", [["x"]], ["x"])], "searches": [Fixed("s")], "documents": corpus(["x"])}
    with pytest.raises(ValueError, match=message):
        map_quietly(**{**call, **changes}, folder=tmp_path / "gold")
    assert not (tmp_path / "gold").exists()


def test_progress_is_shown_in_questions(tmp_path, capsys):
    map_gold([Question("q", "x", [["x"]], ["x"])], [Fixed("s")], corpus(["x"]), tmp_path)
    assert "1/1" in capsys.readouterr().err


def run_mapping(folder: Path, die_at: int | None) -> bool:
    """Map in a fork of this process, which dies when it touches files for the `die_at`-th time; whether it lived."""
    child = os.fork()
    if child == 0:
        touches = count()

        def die(event: str, arguments: tuple) -> None:
            if event in ("os.mkdir", "os.rename", "os.remove", "open") and next(touches) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        documents = corpus(["red", "blue", "red and blue", "green"])
        questions = [Question(f"q{number}", "x", [["red"], ["blue"]], ["x"]) for number in range(5)]
        map_quietly(questions, [Fixed("search", 2, 1, 0)], documents, folder)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def kill_everywhere(folder: Path) -> None:
    gold.PART = 3
    normalise_answer("imports in this process what every mapping would")
    if not run_mapping(folder / "whole", None):
        sys.exit("a mapping that nobody killed has failed")
    for step in count():
        lived = run_mapping(folder / f"killed-{step}", step)
        if not lived and not run_mapping(folder / f"killed-{step}", None):
            sys.exit(f"the mapping killed at step {step} does not go on")
        if lived:
            break


if __name__ == "__main__":
    kill_everywhere(Path(sys.argv[1]))
