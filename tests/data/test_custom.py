"""A dataset of one's own, in every form it may have."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus import open_documents
from amer.data import build_custom, load_dataset_dir
from amer.data import custom as module
from amer.files import read_json

ROWS = [
    {
        "query": "Who won the Arlo Cup?",
        "positives": ["1002__0", "1002__1"],
        "answers": ["Mira Solenne", "Tomas Vrend"],
    },
    {"query": "Where does it rain?", "positives": [["1022__0"], ["1007__0", "1007__1"]], "query_id": "rain"},
    {"query": "Who was born in Port Ost?", "answers": [["Lio Marsh", "L. Marsh"], ["Ada Quill"]]},
    {"query": "Who was not born?", "answers": ["Nobody Atall"]},
]


def write_jsonl(file: Path, rows: Sequence[object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_csv(file: Path, rows: Sequence[dict]) -> Path:
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(["query_id", "query", "positives", "answers"])
        for row in rows:
            lists = [json.dumps(row[name]) if name in row else "" for name in ("positives", "answers")]
            writer.writerow([row.get("query_id", ""), row["query"], *lists])
    return file


def write_parquet(file: Path, rows: Sequence[dict]) -> Path:
    pq.write_table(as_lists(rows), file)
    return file


def as_lists(rows: Sequence[dict]) -> pa.Table:
    def lists(value: list | None) -> list | None:
        return value and [[one] if isinstance(one, str) else one for one in value]

    kind = pa.list_(pa.list_(pa.string()))
    return pa.table({
        "query": [row["query"] for row in rows],
        "query_id": [row.get("query_id") for row in rows],
        "positives": pa.array([lists(row.get("positives")) for row in rows], kind),
        "answers": pa.array([lists(row.get("answers")) for row in rows], kind),
    })  # fmt: skip


WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


@pytest.fixture
def build(corpus, bm25, tmp_path):
    def build(source: Path | str, name: str = "built", **changes) -> Path:
        call = {"documents": corpus, "searches": [bm25], "test_fraction": 0, "validation_fraction": 0}
        build_custom(tmp_path / name, source, **{**call, **changes})
        return tmp_path / name

    return build


@pytest.mark.parametrize("kind", list(WRITERS))
def test_every_file_format_gives_the_same_dataset(build, tmp_path, kind):
    path = build(WRITERS[kind](tmp_path / f"questions.{kind}", ROWS))
    (split,) = load_dataset_dir(path / "dataset").values()
    first = 2 if kind == "csv" else 1
    assert split.query_ids == [f"query-{first}", "rain", f"query-{first + 2}"]
    assert split.queries == [row["query"] for row in ROWS[:3]]
    assert split.targets[:2] == [[["1002__0"], ["1002__1"]], [["1022__0"], ["1007__0", "1007__1"]]]
    assert split.targets[2] == [["1015__0", "1016__0"], ["1015__0", "1017__0"]], "found as the paper does"
    assert split.answers == [[["Mira Solenne"], ["Tomas Vrend"]], [], [["Lio Marsh", "L. Marsh"], ["Ada Quill"]]]
    (dropped,) = map(json.loads, (path / "dropped.jsonl").read_text().splitlines())
    unit = "row" if kind == "parquet" else "line"
    assert dropped == {
        "reason": "answer without a document",
        "file": f"questions.{kind}",
        unit: first + 3,
        "query_id": f"query-{first + 3}",
        "answers": [["Nobody Atall"]],
    }
    assert read_json(path / "dataset" / "dataset.json")["drops"] == {"answer without a document": 1}
    assert not (path / "work").exists()


def test_files_of_splits_are_taken_as_they_are(build, tmp_path):
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS[:2])
    write_csv(tmp_path / "data" / "test.csv", ROWS[2:])
    (tmp_path / "data" / "validation.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    splits = load_dataset_dir(build(tmp_path / "data") / "dataset")
    ids = {name: split.query_ids for name, split in splits.items()}
    assert ids == {"train": ["train-1", "rain"], "validation": ["validation-1"], "test": ["test-2"]}


def test_saved_data_sets_are_read(build, tmp_path):
    whole = datasets.Dataset(as_lists(ROWS))
    whole.save_to_disk(tmp_path / "whole")
    datasets.DatasetDict(train=whole, test=whole.select([0])).save_to_disk(tmp_path / "split")
    (split,) = load_dataset_dir(build(tmp_path / "whole", "a") / "dataset").values()
    assert split.query_ids == ["query-1", "rain", "query-3"]
    splits = load_dataset_dir(build(tmp_path / "split", "b") / "dataset")
    assert {name: one.query_ids for name, one in splits.items()} == {
        "train": ["train-1", "rain", "train-3"],
        "test": ["test-1"],
    }


def test_a_data_set_on_the_hub_is_loaded_by_its_name(build, monkeypatch):
    hub = {"org/questions": datasets.DatasetDict(train=datasets.Dataset(as_lists(ROWS)))}
    monkeypatch.setattr(datasets, "load_dataset", hub.__getitem__)
    (split,) = load_dataset_dir(build("org/questions") / "dataset").values()
    assert split.query_ids == ["train-1", "rain", "train-3"]


def test_positives_may_be_texts_of_the_corpus(build, corpus, tmp_path):
    texts = dict(zip(corpus["id"].to_pylist(), corpus["text"].to_pylist(), strict=True))
    rows = [{"query": "q", "positives": [[texts["1003__0"], "1003__1"], ["1001__0", texts["1001__0"]]]}]
    (split,) = load_dataset_dir(build(write_jsonl(tmp_path / "q.jsonl", rows)) / "dataset").values()
    assert split.targets == [[["1003__0", "1003__1"], ["1001__0"]]]


def test_a_text_that_several_documents_have_means_all_of_them(build, tmp_path):
    documents = pa.table({"id": ["a", "b", "c"], "title": ["1", "2", "3"], "text": ["same", "other", "same"]})
    rows = [{"query": "q", "positives": ["same", "b"]}]
    path = build(write_jsonl(tmp_path / "q.jsonl", rows), documents=documents)
    (split,) = load_dataset_dir(path / "dataset").values()
    assert split.targets == [[["a", "c"], ["b"]]]


def test_without_a_corpus_the_texts_become_one(build, tmp_path):
    rows = [
        {"query": "first", "positives": ["one text", "another"]},
        {"query": "second", "positives": [["another", "a third"]], "answers": ["third"]},
    ]
    path = build(write_jsonl(tmp_path / "q.jsonl", rows), documents=None, searches=())
    documents = open_documents(path / "documents.parquet")
    assert documents.to_pylist() == [
        {"id": "d0", "title": "", "text": "one text"},
        {"id": "d1", "title": "", "text": "another"},
        {"id": "d2", "title": "", "text": "a third"},
    ]
    (split,) = load_dataset_dir(path / "dataset").values()
    assert split.targets == [[["d0"], ["d1"]], [["d1", "d2"]]]
    assert split.answers == [[], [["third"]]]


def test_one_file_is_divided_by_the_questions(build, tmp_path):
    rows = [{"query": f"Question {number}?", "positives": ["1001__0"]} for number in range(40)]
    rows += [{"query": "question 7", "positives": ["1001__1"]}]

    def divided(name: str, rows: list[dict], **changes) -> dict[str, set[str]]:
        source = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        splits = load_dataset_dir(
            build(source, name, test_fraction=0.2, validation_fraction=0.25, **changes) / "dataset"
        )
        return {split: {one.lower().removesuffix("?") for one in loaded.queries} for split, loaded in splits.items()}

    splits = divided("a", rows)
    assert {split: len(queries) for split, queries in splits.items()} == {"train": 24, "validation": 8, "test": 8}
    assert not splits["train"] & splits["test"] | splits["train"] & splits["validation"], "copies stay together"
    assert divided("b", rows[::-1]) == splits, "the order does not matter"
    assert divided("c", rows, seed=1) != splits


def test_a_finished_dataset_is_left_and_another_one_refused(build, tmp_path):
    source = write_jsonl(tmp_path / "q.jsonl", ROWS)
    path = build(source)
    before = (path / "dataset" / "train.parquet").stat().st_mtime_ns
    build(source)
    assert (path / "dataset" / "train.parquet").stat().st_mtime_ns == before
    write_jsonl(source, ROWS[:1])
    with pytest.raises(FileExistsError, match=r"other arguments \(files: there \['q\.jsonl"):
        build(source)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"positives": ["a"]}, "query is None: it must be a text"),
        ({"query": " ", "positives": ["a"]}, "query is ' '"),
        ({"query": "q"}, "give positives or answers; the record has only query"),
        ({"query": "q", "positives": []}, r"positives is \[\]"),
        ({"query": "q", "positives": "a"}, 'positives is "a": it must be a list of'),
        ({"query": "q", "positives": ["a", ""]}, "non-empty"),
        ({"query": "q", "positives": [["a"], []]}, "non-empty"),
        ({"query": "q", "answers": ["a", " "]}, "answers is .*non-empty"),
        ({"query": "q", "answers": [["a", None]]}, "answers is"),
        ({"query": "q", "answers": [1]}, "answers is"),
        ({"query": "q", "positives": ["a", "b"], "answers": ["c"]}, "2 positives but 1 answers"),
        ({"query": "q", "positives": ["a"], "query_id": 1.5}, "query_id is 1.5"),
        ({"query": "q", "positives": ["a"], "query_id": "rain"}, "query_id 'rain' of .*line 2: ids must be unique"),
        ([1], "must hold a JSON object, not list"),
    ],
)
def test_a_bad_record_is_named_by_its_line(build, tmp_path, row, message):
    source = write_jsonl(tmp_path / "q.jsonl", [*ROWS[:2], row, ROWS[2]])
    with pytest.raises(ValueError, match=rf"q\.jsonl, line 3.*{message}"):
        build(source)
    assert not (tmp_path / "built").exists()


def test_all_that_is_wrong_is_told_at_once(build, tmp_path):
    rows = [ROWS[0], "no record", {"query": "q", "answers": [""]}, ROWS[1], {"positives": []}]
    with pytest.raises(ValueError) as caught:
        build(write_jsonl(tmp_path / "q.jsonl", rows))
    lines = str(caught.value).splitlines()
    assert [line.partition("q.jsonl, ")[2][:6] for line in lines] == ["line 2", "line 3", "line 5", "line 5"]


def test_no_more_than_twenty_problems_are_told(build, tmp_path):
    with pytest.raises(ValueError) as caught:
        build(write_jsonl(tmp_path / "q.jsonl", [{"query": "q"}] * 50))
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert "line 20: give positives" in lines[19]
    assert lines[20] == "... the first twenty"


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(build, tmp_path):
    rows = [ROWS[0], {"query": "q", "answers": [""]}]
    with pytest.raises(ValueError, match=r"q\.parquet, row 2: answers is \[\[\"\"\]\]"):
        build(write_parquet(tmp_path / "q.parquet", rows))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q,[1", r"line 4: positives is not JSON .*: '\[1'"),
        ("q", "line 4 has 1 cells, the header has 2"),
        ('q,"[""a""]" x', "line 4 is not valid CSV"),
        ('"two\nlines","[]"', r"line 4: positives is \[\]"),
    ],
)
def test_a_bad_line_of_a_csv_file_is_named(build, tmp_path, line, message):
    good = '"What is\nthis?","[""1001__0""]"\n'
    (tmp_path / "q.csv").write_text(f"query,positives\n{good}{line}\n{good}")
    with pytest.raises(ValueError, match=rf"q\.csv, {message}"):
        build(tmp_path / "q.csv")


def test_positives_that_are_not_in_the_corpus_are_named(build, tmp_path):
    rows = [ROWS[0], {"query": "q", "positives": ["1001__0", "no such text"]}, {"query": "r", "positives": ["9__9"]}]
    message = r"line 2: 'no such text' is neither .*\n.*line 3: '9__9' is neither the id nor the whole text"
    with pytest.raises(ValueError, match=message):
        build(write_jsonl(tmp_path / "q.jsonl", rows))


def test_answers_alone_need_a_corpus_and_a_search(build, tmp_path):
    source = write_jsonl(tmp_path / "q.jsonl", ROWS[2:])
    for lacking in ({"documents": None}, {"searches": ()}):
        with pytest.raises(ValueError, match=r"line 1 has answers only.*give a corpus and a search"):
            build(source, **lacking)


def test_what_is_no_source_is_refused(build, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file, no folder and no name on the Hub"):
        build(tmp_path / "nothing.jsonl")
    (tmp_path / "q.tsv").write_text("query\n")
    with pytest.raises(ValueError, match=r"q\.tsv must end in one of \.jsonl"):
        build(tmp_path / "q.tsv")
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"has the splits \[\]: give files named after train, validation, test"):
        build(tmp_path / "data")
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "data" / "dev.jsonl", ROWS)
    with pytest.raises(ValueError, match=r"has the splits \['dev', 'train'\]"):
        build(tmp_path / "data")
    write_csv(tmp_path / "data" / "train.csv", ROWS)
    with pytest.raises(ValueError, match=r"'train' is in train\.csv, train\.jsonl: remove or add files"):
        build(tmp_path / "data")


@pytest.mark.parametrize(
    "names",
    [
        ["00000-of-00002"],
        ["00000-of-00002", "00001-of-00003"],
        ["00000-of-00001", "00001-of-00002"],
        ["00000-of-00002", "00001-of-00002", "00001-of-00002"],
    ],
)
def test_pieces_that_do_not_make_a_whole_are_refused(build, tmp_path, names):
    (tmp_path / "data").mkdir()
    for number, name in enumerate(names):
        write_jsonl(tmp_path / "data" / f"train-{name}{'.jsonl' if number < 2 else '.JSONL'}", ROWS)
    with pytest.raises(ValueError, match=r"as one file or as all pieces of one, but 'train' is in train-00000-of"):
        build(tmp_path / "data")


def test_a_folder_of_others_that_is_called_work_is_left_alone(build, tmp_path):
    (tmp_path / "built" / "work").mkdir(parents=True)
    (tmp_path / "built" / "work" / "thesis.txt").write_text("ten years")
    build(write_jsonl(tmp_path / "q.jsonl", ROWS[:1]))
    assert (tmp_path / "built" / "work" / "thesis.txt").read_text() == "ten years"


def test_a_fraction_out_of_range_is_refused(build, tmp_path):
    source = write_jsonl(tmp_path / "q.jsonl", ROWS[:2])
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        build(source, test_fraction=1.5)


def test_a_split_that_comes_out_empty_is_told(build, tmp_path):
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "data" / "test.jsonl", ROWS[3:])
    with pytest.raises(ValueError, match="no question was left for test"):
        build(tmp_path / "data")


def test_a_truncated_file_is_named(build, tmp_path):
    file = write_parquet(tmp_path / "q.parquet", ROWS)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(OSError, match=r"q\.parquet is truncated"):
        build(file)


def test_the_corpus_is_searched_for_texts_in_every_chunk(tmp_path):
    documents = pa.table({"id": [str(row) for row in range(100)], "title": [""] * 100, "text": ["x"] * 99 + ["y"]})
    chunked = pa.Table.from_batches(documents.to_batches(max_chunksize=7))
    place = module.Place(Path("f"), "line", 1)
    asked = module.SourceQuestion(module.Question("q", "q", [], ["q"]), place)
    found = module._documents_of([module.Row(asked, [["3", "98"], ["y"]])], chunked)
    assert found == {"3": ["3"], "98": ["98"], "y": ["99"]}


BOM = "\N{BYTE ORDER MARK}"
TEXT = "a document of its own"


def ids_of(folder: Path) -> list[str]:
    return [name for split in load_dataset_dir(folder / "dataset").values() for name in split.query_ids]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", BOM + json.dumps({"query_id": "q0", "query": "?", "positives": [TEXT]}) + "\n"),
        ("bom.csv", f'{BOM}"query_id","query","positives"\n"q0","?","[""{TEXT}""]"\n'),
        ("blank.jsonl", "\n" + json.dumps({"query_id": "q0", "query": "?", "positives": [TEXT]}) + "\n \n\n"),
        ("blank.csv", f'query_id,query,positives\n\n"q0","?","[""{TEXT}""]"\n\n  \n'),
    ],
)
def test_byte_order_marks_and_blank_lines_are_passed_over(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    build_custom(tmp_path / "built", tmp_path / name, test_fraction=0, validation_fraction=0)
    assert ids_of(tmp_path / "built") == ["q0"]


def test_blank_lines_count_in_the_numbers_of_lines(tmp_path):
    (tmp_path / "q.jsonl").write_text("\n\n{\n")
    with pytest.raises(ValueError, match="line 3 is not JSON"):
        build_custom(tmp_path / "built", tmp_path / "q.jsonl")


def test_a_cell_may_hold_a_long_document(tmp_path):
    long = "word " * 40_000
    write_csv(tmp_path / "q.csv", [{"query": "?", "query_id": "q0", "positives": [long]}])
    build_custom(tmp_path / "built", tmp_path / "q.csv", test_fraction=0, validation_fraction=0)
    assert open_documents(tmp_path / "built" / "documents.parquet").column("text").to_pylist() == [long]


@pytest.mark.parametrize(("character", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_delimiter_is_named(tmp_path, character, name):
    (tmp_path / "q.csv").write_text(character.join(["query_id", "query", "positives"]) + "\n")
    with pytest.raises(ValueError, match=f"separated by {name}: save it with commas"):
        build_custom(tmp_path / "built", tmp_path / "q.csv")


def test_a_source_that_cannot_be_reached_is_named(build):
    with pytest.raises(OSError, match="nosuch/name is neither a data set saved in a local folder nor one on the Hub"):
        build("nosuch/name")


def test_targets_of_the_same_documents_stay_apart_where_their_answers_differ(build, tmp_path):
    rows = [{"query": "q", "positives": ["t1", "t1", "t1"], "answers": ["one", "two", "one"]}]
    path = build(write_jsonl(tmp_path / "q.jsonl", rows), documents=None, searches=[])
    (split,) = load_dataset_dir(path / "dataset").values()
    assert (split.targets, split.answers) == ([[["d0"], ["d0"]]], [[["one"], ["two"]]])
    assert read_json(path / "dataset" / "dataset.json")["drops"] == {
        "positive with the documents of another, merged": 1
    }
