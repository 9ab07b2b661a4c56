"""Compound questions: their parts, spans and splits, and the templates that join them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from amer.data import RetrievalDataset, build_compound, load_dataset_dir, save_dataset_dir
from amer.data.compound import (
    HELD_OUT_TEMPLATES,
    MARKS,
    TEMPLATES,
    Templates,
    draw_compound,
    draw_dataset,
    load_templates,
    prepare_parts,
)
from amer.files import read_json

PLAIN = Templates({1: ["{}"], 2: ["{} and {}", "{}; {}"], 3: ["{}, {} and {}"]})


def make_split(queries: list[str], targets=None, **changes) -> RetrievalDataset:
    columns = {
        "query_ids": [f"q{i}" for i in range(len(queries))],
        "queries": queries,
        "targets": targets or [[[f"d{i}"]] for i in range(len(queries))],
        "answers": [[] for _ in queries],
    }
    return RetrievalDataset(**{**columns, **changes})


def numbered(split: str, count: int) -> RetrievalDataset:
    return make_split([f"Find {split} number {i}." for i in range(count)], [[[f"{split}-{i}"]] for i in range(count)])


@pytest.fixture
def source(tmp_path) -> Path:
    splits = {"train": numbered("train", 60), "validation": numbered("validation", 20), "test": numbered("test", 30)}
    save_dataset_dir(tmp_path / "source" / "dataset", splits, {"source": "hand", "licence": "mit"})
    return tmp_path / "source"


SMALL = {"num_train": 80, "num_validation": 20, "num_test": 40}


def test_parts_stand_where_their_spans_say_and_share_no_target(source, tmp_path):
    build_compound(tmp_path / "out", source, **SMALL)
    splits = load_dataset_dir(tmp_path / "out" / "dataset")
    assert {name: len(split) for name, split in splits.items()} == {"train": 80, "validation": 20, "test": 40}
    for name, split in splits.items():
        assert Counter(map(len, split.targets)) == {parts: len(split) // 4 for parts in (1, 2, 3, 4)}
        for query, targets, spans in zip(split.queries, split.targets, split.spans, strict=True):
            documents = [document for (document,) in targets]
            assert len({*documents}) == len(targets)
            for document, (start, end) in zip(documents, spans, strict=True):
                kind, number = document.split("-")
                assert kind == name, "questions of two splits are never joined"
                assert query[start:end].lower() == f"find {name} number {number}"
            assert [span[0] for span in spans] == sorted(span[0] for span in spans)
        assert len({*split.queries}) == len(split)
    info = read_json(tmp_path / "out" / "dataset" / "dataset.json")
    assert (info["source"], info["licence"]) == ("hand", "mit")
    assert info["arguments"]["seed"] == 0


def test_the_seed_decides_every_byte_and_a_finished_build_stays(source, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        build_compound(tmp_path / name, source / "dataset", seed=seed, **SMALL)
    one, two, three = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "dataset").iterdir()}
        for name in ("one", "two", "three")
    )
    assert one == two
    assert all(one[name] != three[name] for name in one)
    written = (tmp_path / "one" / "dataset" / "train.parquet").stat().st_mtime_ns
    build_compound(tmp_path / "one", source, **SMALL)
    assert (tmp_path / "one" / "dataset" / "train.parquet").stat().st_mtime_ns == written
    with pytest.raises(FileExistsError, match="seed: there 0, now 1"):
        build_compound(tmp_path / "one", source, seed=1, **SMALL)


def test_shares_and_splits_can_be_chosen(source, tmp_path):
    build_compound(tmp_path / "out", source, shares=(0, 0, 0, 0, 0.5, 0.5), num_train=0, num_validation=0, num_test=10)
    splits = load_dataset_dir(tmp_path / "out" / "dataset")
    assert [*splits] == ["test"]
    assert Counter(map(len, splits["test"].targets)) == {5: 5, 6: 5}
    for shares in ((), (0.5, 0.6), (1.5, -0.5)):
        with pytest.raises(ValueError, match="must add up to 1"):
            build_compound(tmp_path / "bad", source, shares=shares, **SMALL)


def test_a_licence_text_travels_along(source, tmp_path):
    (source / "dataset" / "LICENSE.WordNet").write_text("do as you like")
    build_compound(tmp_path / "out", source, **SMALL)
    assert (tmp_path / "out" / "dataset" / "LICENSE.WordNet").read_text() == "do as you like"


def test_only_questions_of_one_target_are_joined():
    split = make_split(
        ["one", "two", "three", "four"],
        [[["a"]], [["b"], ["c"]], [["a", "d"]], [["e"]]],
        answers=[[["A"]], [["B"], ["C"]], [["D"]], []],
    )
    parts = prepare_parts(split)
    assert parts.texts == ["one", "three", "four"]
    drawn = draw_dataset(parts, PLAIN, np.random.default_rng(0), 60, (0.5, 0.5))
    for query, targets, answers in zip(drawn.queries, drawn.targets, drawn.answers, strict=True):
        assert not ("one" in query and "three" in query), "both are answered by document a"
        assert len(answers) == (0 if "four" in query else len(targets))
    with pytest.raises(ValueError, match="a question of 3 parts needs 3 questions"):
        draw_compound(parts, PLAIN, np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match=r"no template of 4 parts, only of \[1, 2, 3\]"):
        draw_compound(parts, PLAIN, np.random.default_rng(0), 4)
    with pytest.raises(ValueError, match="vectors: only texts"):
        prepare_parts(RetrievalDataset(["a"], [[["d"]]], [[]], input_vectors=np.ones((1, 3), np.float32)))


@pytest.mark.parametrize(
    ("query", "text", "inner"),
    [
        ("Compute the mean.", "Compute the mean", "compute the mean"),
        ("Who wrote it?", "Who wrote it", "who wrote it"),
        ("HTTP server.", "HTTP server", "HTTP server"),
        ("NumPy arrays", "NumPy arrays", "NumPy arrays"),
        ("A thing of beauty.", "A thing of beauty", "a thing of beauty"),
        ("I am here", "I am here", "I am here"),
        (
            "Bessel function of the first kind.",
            "Bessel function of the first kind",
            "Bessel function of the first kind",
        ),
        ("Lists, tuples, etc.", "Lists, tuples, etc.", "lists, tuples, etc."),
        ("And so on ...", "And so on ...", "and so on ..."),
        ("2D array", "2D array", "2D array"),
        ("bank", "bank", "bank"),
        ("?!", "?!", "?!"),
    ],
)
def test_a_part_loses_its_last_mark_and_its_capital_letter(query, text, inner):
    parts = prepare_parts(make_split([query, "the function of Bessel", "the modified Bessel function"]))
    assert (parts.texts[0], parts.inner[0]) == (text, inner)


def test_a_part_keeps_its_capital_at_the_beginning_of_a_sentence():
    parts = prepare_parts(make_split(["Compute it.", "Sort it."]))
    for template, pattern in (
        ("{} and {}", "{0} and {1}"),
        ("what is {}? {}", "what is {2}? {1}"),
        ("{}. {}", "{0}. {1}"),
    ):
        drawn = draw_compound(parts, Templates({2: [template]}), np.random.default_rng(0), 2)
        first, second = (parts.texts[row] for row in drawn.rows)
        expected = pattern.format(first, second if template != "{} and {}" else second.lower(), first.lower())
        assert drawn.question == expected
        assert [drawn.question[start:end].lower() for start, end in drawn.spans] == [first.lower(), second.lower()]


def test_an_epoch_draws_anew_and_can_be_drawn_again():
    parts, templates = prepare_parts(numbered("train", 50)), load_templates()
    drawn = {
        (seed, epoch): draw_dataset(parts, templates, np.random.default_rng([seed, epoch]), 100).queries
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(queries) for queries in drawn.values()}) == 4
    assert len({*drawn[0, 0]} & {*drawn[0, 1]}) < 50
    assert draw_dataset(parts, templates, np.random.default_rng([1, 1]), 100).queries == drawn[1, 1]


def test_more_questions_than_combinations_repeat_some():
    parts = prepare_parts(numbered("train", 3))
    drawn = draw_dataset(parts, PLAIN, np.random.default_rng(0), 9, (1,))
    assert len(drawn) == 9 and len({*drawn.queries}) == 3


def test_the_packaged_templates_are_many_and_those_held_out_are_others():
    training, held_out = load_templates(TEMPLATES).forms, load_templates(HELD_OUT_TEMPLATES).forms
    assert all(len({*training[parts]}) >= 10 for parts in (2, 3, 4))
    assert all(len({*held_out[parts]}) >= 6 for parts in (2, 3, 4))
    assert {*training} == {*held_out} == {1, 2, 3, 4, 5, 6}
    assert {text for parts in (2, 3, 4, 5, 6) for text in {*training[parts]} & {*held_out[parts]}} == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- '{} and {}'", "must map each number of parts"),
        ("2: '{} and {}'", "must map each number of parts"),
        ("2: []", "must map each number of parts"),
        ("2: ['{} and {}', 'only {}']", r"the template 'only \{\}' under 2"),
        ("two: ['{} and {}']", "under 'two'"),
        ("0: ['nothing']", "under 0"),
        ("2: [3]", "the template 3 under 2"),
        ("2: ['{ask} and {}']", "needs a list `asks`"),
        ("asks: ['how do I {ask}']\n1: ['{}']", "how do I {ask}"),
        ("asks: ['{any} {}']\n1: ['{ask}']", "texts without"),
        ("asks: ['{} {ask}']\n1: ['{ask}']", "under 1"),
        ("2: ['", "is not YAML"),
    ],
)
def test_malformed_templates_are_refused(source, tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.yaml.*{message}"):
        build_compound(tmp_path / "out", source, templates=tmp_path / "mine.yaml", **SMALL)
    with pytest.raises(FileNotFoundError):
        build_compound(tmp_path / "out", source, templates=tmp_path / "none.yaml", **SMALL)


def test_asks_and_random_words_stand_around_the_parts():
    parts, rng = prepare_parts(numbered("train", 20)), np.random.default_rng(0)
    templates = Templates({2: ["{ask}, {ask}", "{}{any}{}"]}, ["how do I {}", "{}"])
    drawn = [draw_compound(parts, templates, rng, 2) for _ in range(60)]
    assert any(compound.question.lower().startswith("how do i ") for compound in drawn)
    for compound in drawn:
        found = [compound.question[start:end].lower() for start, end in compound.spans]
        assert found == [parts.texts[row].lower() for row in compound.rows]
        between = compound.question[compound.spans[0][1] : compound.spans[1][0]]
        assert between in (", ", ", how do I ") or between.strip() in MARKS or {*between.split()} <= {*parts.words}
    assert templates.without_any().forms == {2: ["{ask}, {ask}"]}


def test_only_training_questions_have_random_words(source, tmp_path):
    (tmp_path / "templates.yaml").write_text('1: ["{}"]\n2: ["{}{any}{}", "{} zyx {}"]\n', encoding="utf-8")
    build_compound(tmp_path / "out", source, tmp_path / "templates.yaml", (0.0, 1.0), **SMALL)
    splits = load_dataset_dir(tmp_path / "out" / "dataset")
    assert all(" zyx " in query for query in splits["test"].queries)
    assert not all(" zyx " in query for query in splits["train"].queries)
