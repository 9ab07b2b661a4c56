"""QAMPARI from files in the published format, through real BM25 and the real answer matcher."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from amer.data import build_qampari, load_dataset_dir
from amer.data.answer_matching import normalise_answer
from amer.files import read_json


@pytest.fixture
def build(corpus, bm25, fixtures, tmp_path):
    def build(name: str = "built", **changes) -> Path:
        call = {"documents": corpus, "searches": [bm25], "source": fixtures / "qampari"}
        build_qampari(tmp_path / name, **{**call, **changes})
        return tmp_path / name

    return build


@pytest.fixture
def source(fixtures, tmp_path) -> Path:
    return Path(shutil.copytree(fixtures / "qampari", tmp_path / "qampari"))


def name(number: int, kind: str, split: str = "train") -> str:
    return f"{number}__{kind}__{split}"


def test_every_question_is_in_one_split_or_was_dropped_for_a_reason(build):
    path = build()
    splits = load_dataset_dir(path / "dataset")
    simple = [name(number, "wikidata_simple") for number in range(9)]
    kept = {*splits["train"].query_ids, *splits["validation"].query_ids}
    assert kept == {simple[0], simple[1], name(2, "wikidata_comp")}
    assert len(splits["validation"]) == 1
    assert splits["test"].query_ids == [name(0, "wikidata_simple", "dev"), name(1, "wikitables_simple", "dev")]
    records = [json.loads(line) for line in (path / "dropped.jsonl").read_text().splitlines()]
    assert {(record["reason"], record["query_id"], record["file"], record["line"]) for record in records} == {
        ("more than 8 distinct answers", simple[3], "train_data.jsonl", 4),
        ("fewer than 5 distinct answers", name(4, "wikidata_intersection"), "train_data.jsonl", 5),
        ("empty question", simple[5], "train_data.jsonl", 6),
        ("answer without a document", simple[6], "train_data.jsonl", 7),
        ("answer with the aliases of another, merged", name(7, "wikitables_simple"), "train_data.jsonl", 8),
        ("fewer than 5 distinct answers", name(7, "wikitables_simple"), "train_data.jsonl", 8),
        ("question of the test set", simple[8], "train_data.jsonl", 9),
        ("fewer than 5 distinct answers", name(2, "wikidata_simple", "dev"), "dev_data.jsonl", 3),
    }
    info = read_json(path / "dataset" / "dataset.json")
    assert sum(info["drops"].values()) == 8
    assert info["stages"] == {
        "read": {"train": 9, "dev": 3},
        "5 to 8 answers": {"train": 5, "dev": 2},
        "mapped": {"train": 4, "dev": 2},
    }
    assert info["paper"] == {
        "expected": {"train and validation": 32_023, "test": 531, "targets a question": 6.09},
        "found": {"train and validation": 3, "test": 2, "targets a question": 5.5},
        "read": {"train": 61_911, "dev": 1_000},
    }


def test_targets_are_found_by_the_snippets_not_by_the_question(build, corpus):
    splits = load_dataset_dir(build(depth=1) / "dataset")
    texts = {record["id"]: record["text"] for record in corpus.to_pylist()}
    test = splits["test"]
    assert test.answers[1][0] == ["Low House", "The Low House"], "the answer and its aliases, each spelling once"
    for targets, answers in zip(test.targets, test.answers, strict=True):
        assert [len(cluster) for cluster in targets] == [1] * len(answers), "one candidate a snippet"
        for (document,), aliases in zip(targets, answers, strict=True):
            assert normalise_answer(aliases[0]) in normalise_answer(texts[document])


def test_copies_of_a_question_are_never_parted(build, source):
    records = [json.loads(line) for line in (source / "train_data.jsonl").read_text().splitlines()]
    copies = [{**records[0], "qid": f"copy-{number}"} for number in range(5)]
    copies[0]["question_text"] = "what did hans brekke design"
    with (source / "train_data.jsonl").open("a") as stream:
        stream.writelines(json.dumps(copy) + "\n" for copy in copies)
    together = {records[0]["qid"], *(copy["qid"] for copy in copies)}
    for seed in range(5):
        splits = load_dataset_dir(build(str(seed), source=source, seed=seed) / "dataset")
        assert len([split for split in splits.values() if together & {*split.query_ids}]) == 1
        assert sum(len(together & {*split.query_ids}) for split in splits.values()) == 6


def test_gzipped_files_give_the_same_splits(build, source):
    plain = load_dataset_dir(build() / "dataset")
    for split in ("train", "dev"):
        file = source / f"{split}_data.jsonl"
        (source / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    gzipped = load_dataset_dir(build("gzipped", source=source) / "dataset")
    assert {one: split.targets for one, split in plain.items()} == {
        one: split.targets for one, split in gzipped.items()
    }


def test_a_missing_split_is_named(build, source):
    (source / "dev_data.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"QAMPARI's dev split: .*dev_data\.jsonl and dev_data\.jsonl\.gz"):
        build(source=source)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 4 is not JSON"),
        ('{"qid": "a", "question_text": "q"}', "line 4 is not in the published format.*answer_list"),
        ('{"qid": "a", "question_text": "q", "answer_list": ["x"]}', "line 4 is not in the published format"),
        (
            '{"qid": "0__wikidata_simple__dev", "question_text": "q", "answer_list": []}',
            "line 4 has the id of .*dev_data.jsonl, line 1",
        ),
        (
            '{"qid": "a", "question_text": "q", "answer_list": [{"answer_text": null, "aliases": [], "proof": []}]}',
            "line 4: .*must be a string and lists of strings",
        ),
        (
            '{"qid": "a", "question_text": "q", "answer_list": [{"answer_text": "", "aliases": "Arlo", "proof": []}]}',
            "line 4 is not in the published format.*'Arlo' is not a list of texts",
        ),
    ],
)
def test_a_malformed_line_is_named(build, source, line, message):
    with (source / "dev_data.jsonl").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(ValueError, match=rf"dev_data\.jsonl, {message}"):
        build(source=source)


def test_a_file_cut_short_is_named(build, source):
    compressed = gzip.compress((source / "dev_data.jsonl").read_bytes())
    (source / "dev_data.jsonl").unlink()
    (source / "dev_data.jsonl.gz").write_bytes(compressed[:-100])
    with pytest.raises(OSError, match=r"dev_data\.jsonl\.gz, line \d+: the file is cut short"):
        build(source=source)


def test_a_question_without_a_snippet_is_dropped(build, source):
    records = [json.loads(line) for line in (source / "train_data.jsonl").read_text().splitlines()]
    for answer in records[1]["answer_list"]:
        answer["proof"] = []
    (source / "train_data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    info = read_json(build(source=source) / "dataset" / "dataset.json")
    assert info["drops"]["nothing to search with"] == 1


@pytest.mark.parametrize("every", [False, True])
def test_ids_may_be_whole_numbers(build, source, every):
    for split in ("train", "dev"):
        file = source / f"{split}_data.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        for number, record in enumerate(records):
            record["qid"] = number + 100 * (split == "dev") if every or number == 0 else record["qid"]
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    splits = load_dataset_dir(build(source=source) / "dataset")
    assert "0" in {*splits["train"].query_ids, *splits["validation"].query_ids}
    assert "100" in splits["test"].query_ids


@pytest.mark.parametrize("wrong", [True, 1.5, None, ["a"]])
def test_an_id_of_another_type_is_named_by_file_and_line(build, source, wrong):
    file = source / "dev_data.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    records[1]["qid"] = wrong
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(ValueError, match=r"dev_data\.jsonl, line 2 .* is neither a text nor a whole number"):
        build(source=source)
