"""Five systems on the same questions, the report of them, and the questions that are shown."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from amer.baselines.splitting import RULE, TOLD
from amer.corpus import DocumentEncoder, encode_corpus, open_documents
from amer.data import RetrievalDataset
from amer.evaluation import target_similarity
from amer.files import read_json
from amer.fitting.comparison import AMER, ENCODER, ONE, Comparison, compare
from amer.fitting.examples import example_questions, example_table
from amer.fitting.report import save_report
from amer.fitting.table import comparison_table
from amer.search import ExactIndex, Hit, VectorWords
from tests.conftest import build_mini

pytest.importorskip("sentence_transformers")
PARTS = ["find the red river", "find the big bank; the small one", "find the cold stone", "find the warm wheel"]
TARGETS = ["d0", "d41", "d98", "d87"]


def joined(count: int) -> tuple[str, list[list[int]]]:
    text, spans = "", []
    for part in PARTS[:count]:
        text += " and " if text else ""
        spans.append([len(text), len(text) + len(part)])
        text += part
    return text, spans


@pytest.fixture(scope="module")
def house(files, tiny_encoder, tmp_path_factory) -> SimpleNamespace:
    """Twelve questions of one to four parts, an index, the encoder alone, and two untrained models."""
    encoder = DocumentEncoder.from_identity({"name": tiny_encoder}, "cpu")
    documents = open_documents(files / "docs.jsonl")
    store = encode_corpus(documents, encoder, tmp_path_factory.mktemp("store") / "store", show_progress_bar=False)
    questions = [joined(1 + number % 4) for number in range(12)]
    test = RetrievalDataset(
        [f"q{number}" for number in range(12)],
        [[[name] for name in TARGETS[: 1 + number % 4]] for number in range(12)],
        [[]] * 12,
        [question for question, _ in questions],
        spans=[spans for _, spans in questions],
    )
    model = build_mini(tiny_encoder, num_query_vectors=4)
    model.stop_projection.weight.data.zero_()
    model.stop_projection.bias.data.fill_(-1)  # never stops: four vectors a question
    one = build_mini(tiny_encoder, num_query_vectors=1, max_query_vectors=1, stop_score=False)
    console = Console(file=io.StringIO(), width=80)
    comparison = compare(model, one, test, ExactIndex(store, "cpu"), console)
    return SimpleNamespace(comparison=comparison, encoder=encoder, index=ExactIndex(store, "cpu"), test=test)


def test_every_system_is_searched_as_its_name_says(house):
    comparison, test = house.comparison, house.test.link(house.index.store)
    systems = {system.name: system for system in comparison.systems}
    assert list(systems) == [ENCODER, RULE, ONE, AMER, TOLD]
    assert [systems[name].searches_per_query for name in (ENCODER, ONE, AMER, TOLD)] == [1, 1, 4, 2.5]
    assert systems[RULE].searches_per_query == 3.25  # the second part has a semicolon
    assert all(system.seconds_per_query > 0 for system in systems.values())
    assert comparison.parts.tolist() == [1, 2, 3, 4] * 3 and comparison.parts_right == 0.25
    rows, _ = house.index.search(house.encoder.encode_queries(test.queries)[:, None], 10)
    found = [
        np.mean([target[0] in own for target in wanted])
        for own, wanted in zip(rows[:, 0], test.linked_rows, strict=True)
    ]
    np.testing.assert_allclose(systems[ENCODER].values["recall@10"], found)


def test_told_the_split_the_parts_are_searched_one_by_one(house):
    alone, *_, told = (system.values["recall@10"] for system in house.comparison.systems)
    rows, _ = house.index.search(house.encoder.encode_queries(PARTS)[:, None], 100)
    places = [int(np.flatnonzero(own == int(name[1:]))[0]) for own, name in zip(rows[:, 0], TARGETS, strict=True)]
    assert alone[0] == told[0] == (places[0] < 10)
    if not np.isin(rows[0, 0, :5], rows[1, 0, :5]).any():
        assert told[1] == np.mean([place < 5 for place in places[:2]])


def test_the_table_marks_the_best_but_not_who_is_told(house):
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=True, color_system="standard").print(
        comparison_table(house.comparison)
    )
    rows = {line.split("│")[1].strip(): line for line in stream.getvalue().splitlines() if line.startswith("│")}
    assert list(rows) == [ENCODER, RULE, ONE, AMER, TOLD]
    assert any("\x1b[1m" in rows[name] for name in (ENCODER, RULE, ONE, AMER)) and "\x1b[1m" not in rows[TOLD]
    assert "right number of parts for 25.0% of them" in " ".join(stream.getvalue().split())


def test_the_report_has_what_a_card_reads_and_the_parts(house, tmp_path):
    comparison: Comparison = house.comparison
    similarity = target_similarity(house.test.link(house.index.store).linked_rows, house.index.store)
    save_report(comparison, similarity, {"model": "model"}, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"report.md", "results.json", "comparison.png"}
    results = read_json(tmp_path / "results.json")
    assert results["metadata"]["system"] == AMER and results["references"] == [ONE, ENCODER, RULE]
    assert list(results["systems"]) == [ENCODER, RULE, ONE, AMER, TOLD]
    values = comparison.systems[0].values["recall@10"]
    means = {str(number): values[comparison.parts == number].mean() for number in range(1, 5)}
    assert results["recall@10_by_parts"][ENCODER] == means
    report = (tmp_path / "report.md").read_text()
    assert "| System | one part | 2 parts | 3 parts | 4 parts |" in report and "(comparison.png)" in report


def test_questions_without_spans_are_refused(house):
    bare = RetrievalDataset(house.test.query_ids, house.test.targets, house.test.answers, house.test.queries)
    with pytest.raises(ValueError, match="amer dataset compound"):
        compare(None, None, bare, house.index, Console(file=io.StringIO()))


def test_the_first_question_of_two_three_and_one_parts_is_asked(house):
    assert example_questions(house.test) == [joined(2)[0], joined(3)[0], joined(1)[0]]
    assert example_questions(house.test.select([0, 3])) == [joined(1)[0]]


def test_each_document_stands_beside_the_words_that_found_it():
    stream = io.StringIO()
    parts = [VectorWords("sort a list", [(0, 11)]), VectorWords("[x]", [(16, 19)])]
    hits = [Hit(f"d{i}", 0.5, f"title {i}", "text [y] " * 40, i % 2, i // 2) for i in range(6)]
    Console(file=stream, width=100).print(example_table("sort a list and [x]", hits, parts))
    lines = stream.getvalue().splitlines()
    assert lines[0].strip() == "sort a list and [x]"
    rows = [line.strip() for line in lines if "title" in line]
    assert [row.startswith(words) for row, words in zip(rows, ["sort a list", "[x]"] * 2, strict=True)] == [True] * 4
