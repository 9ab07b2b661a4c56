from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus.store import write_store
from amer.data import RetrievalDataset, load_dataset_dir, save_dataset_dir


def make_split(**changes) -> RetrievalDataset:
    columns = {
        "query_ids": ["a", "b"],
        "queries": ["river bank", "money bank"],
        "targets": [[["d0", "d1"], ["d2"]], [["d3"]]],
        "answers": [[["bank", "shore"], ["side"]], []],
    }
    return RetrievalDataset(**{**columns, **changes})


VECTORS = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)


def test_a_directory_comes_back_as_it_was_saved(tmp_path):
    split = make_split(input_vectors=VECTORS)
    save_dataset_dir(tmp_path / "set", {"train": split, "test": make_split()}, {"source": "hand"})
    loaded = load_dataset_dir(tmp_path / "set")
    assert list(loaded) == ["train", "test"]
    for name in ("query_ids", "queries", "targets", "answers"):
        assert getattr(loaded["train"], name) == getattr(split, name)
    np.testing.assert_array_equal(loaded["train"].input_vectors, VECTORS)
    assert loaded["train"].input_vectors.dtype == np.float32
    assert loaded["test"].input_vectors is None
    info = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert info["source"] == "hand"
    assert info["splits"]["train"] == {"queries": 2, "targets": 3, "documents": 4}


def test_hugging_face_datasets_reads_the_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    split = make_split(input_vectors=VECTORS)
    save_dataset_dir(tmp_path / "set", {"train": split, "validation": split, "test": split}, {})
    read = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert set(read) == {"train", "validation", "test"}
    assert read["test"][0]["targets"] == [["d0", "d1"], ["d2"]]
    assert read["test"][1]["query_vector"] == [4, 5, 6]


def test_a_split_written_by_hugging_face_datasets_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {
        "query_id": ["a", "b"],
        "query_vector": VECTORS.tolist(),
        "targets": [[["d0"]], [["d1"]]],
        "answers": [[], []],
    }
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "dataset.json").write_text("{}")
    np.testing.assert_array_equal(load_dataset_dir(tmp_path)["train"].input_vectors, VECTORS)


def test_items_carry_what_the_split_has():
    assert make_split()[1] == {"index": 1, "query": "money bank"}
    both = make_split(input_vectors=VECTORS)[-1]
    assert (both["index"], both["query"]) == (1, "money bank")
    np.testing.assert_array_equal(both["query_vector"], VECTORS[1])
    with pytest.raises(IndexError):
        make_split()[2]


def test_select_keeps_the_order_given_and_every_column():
    chosen = make_split(input_vectors=VECTORS).select([1, 0])
    assert chosen.query_ids == ["b", "a"]
    assert chosen.queries == ["money bank", "river bank"]
    assert chosen.targets[0] == [["d3"]]
    np.testing.assert_array_equal(chosen.input_vectors, VECTORS[::-1])
    with pytest.raises(ValueError, match="'a' is used twice"):
        chosen.select([1, 1])
    with pytest.raises(IndexError):
        chosen.select([2])


SPANS = [[[0, 5], [6, 10]], []]


def test_spans_come_back_and_follow_their_queries(tmp_path):
    split = make_split(spans=SPANS)
    save_dataset_dir(tmp_path / "set", {"train": split, "test": make_split()}, {})
    loaded = load_dataset_dir(tmp_path / "set")
    assert (loaded["train"].spans, loaded["test"].spans) == (SPANS, None)
    assert pq.read_schema(tmp_path / "set" / "train.parquet").names[-1] == "spans"
    assert "spans" not in pq.read_schema(tmp_path / "set" / "test.parquet").names
    assert split.select([1, 0]).spans == SPANS[::-1]
    assert split.with_input_vectors(VECTORS).spans == SPANS
    assert split[0]["spans"] == [[0, 5], [6, 10]]


def test_query_vectors_are_checked_when_added():
    np.testing.assert_array_equal(make_split().with_input_vectors(VECTORS).input_vectors, VECTORS)
    with pytest.raises(ValueError, match="2 query ids but 1 input_vectors"):
        make_split().with_input_vectors(VECTORS[:1])
    with pytest.raises(ValueError, match="query 'b' has a zero vector"):
        make_split().with_input_vectors(VECTORS * [[1], [0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": [[["d0"]], []], "answers": [[], []]}, "query 'b' has no targets"),
        ({"targets": [[["d0"], []], [["d3"]]], "answers": [[], []]}, "query 'a' has the target"),
        ({"targets": [[["d0", None]], [["d3"]]], "answers": [[], []]}, "query 'a' has the target"),
        ({"query_ids": ["a", "a"]}, "'a' is used twice"),
        ({"query_ids": ["a", ""]}, "query number 1"),
        ({"queries": ["river bank", " "]}, "query 'b' has the text"),
        ({"queries": None}, "neither queries nor input_vectors"),
        ({"answers": [[["bank"]], []]}, "query 'a' has 2 targets but answers"),
        ({"input_vectors": VECTORS * np.float32(np.nan)}, "query 'a' has a zero vector, or a vector with NaN"),
        ({"input_vectors": VECTORS.astype(np.float64)}, "must be float32"),
        ({"queries": ["river bank"]}, "2 query ids but 1 queries"),
        ({"spans": [[[0, 5], [6, 10]]]}, "2 query ids but 1 spans"),
        ({"spans": [[[0, 5]], []]}, "query 'a' has 2 targets but spans"),
        ({"spans": [[[0, 5], [6, 11]], []]}, r"query 'a' has the span \[6, 11\].*10, the length"),
        ({"spans": [[], [[3, 3]]]}, "query 'b' has the span"),
        ({"spans": [[], [[-1, 3]]]}, "query 'b' has the span"),
        ({"spans": [[], [[0, 3, 5]]]}, "query 'b' has the span"),
        ({"spans": SPANS, "queries": None, "input_vectors": VECTORS}, "spans are given, but no queries"),
    ],
)
def test_a_broken_split_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_split(**changes)


ROW = {"query_id": ["a"], "query": ["bank"], "targets": [[["d0"]]], "answers": [[["shore"]]]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({k: v for k, v in ROW.items() if k != "targets"}, "the file needs query_id, targets"),
        ({k: v for k, v in ROW.items() if k != "query"}, "query or query_vector"),
        ({**ROW, "targets": [["d0"]]}, "column 'targets' is list<.*list<list<string>>"),
        ({**ROW, "targets": [[]]}, "query 'a' has no targets"),
        ({**ROW, "query_id": [1.0]}, "column 'query_id' is double"),
        ({**ROW, "spans": [[0, 4]]}, "column 'spans' is list<.*list<list<int32>>"),
        ({**ROW, "spans": [[[0, 5]]]}, "query 'a' has the span"),
        ({**ROW, "query_vector": [[1, 2]]}, "column 'query_vector' is list<.*must be a list of float32"),
        ({**ROW, "query_vector": [[1.0, None]]}, "null numbers"),
        ({**ROW, "query_vector": [[1.0, float("nan")]]}, "query 'a' has a zero vector, or a vector with NaN"),
        ({k: v * 2 for k, v in ROW.items()} | {"query_vector": [[1.0], [1.0, 2.0]]}, "query_vector of length 2"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, row, message):
    pq.write_table(pa.table(row), tmp_path / "train.parquet")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"train\.parquet: .*{message}"):
        load_dataset_dir(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    save_dataset_dir(tmp_path / "set", {"train": make_split(), "test": make_split()}, {})
    save_dataset_dir(tmp_path / "other", {"test": make_split().select([0])}, {})
    (tmp_path / "other" / "test.parquet").replace(tmp_path / "set" / "test.parquet")
    with pytest.raises(ValueError, match=r"test\.parquet holds 1 queries, dataset\.json says 2"):
        load_dataset_dir(tmp_path / "set")
    (tmp_path / "set" / "test.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(OSError, match=r"test\.parquet"):
        load_dataset_dir(tmp_path / "set")
    (tmp_path / "set" / "test.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks test\.parquet"):
        load_dataset_dir(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
        load_dataset_dir(tmp_path / "nowhere")
    (tmp_path / "set" / "dataset.json").write_text("[]")
    with pytest.raises(ValueError, match=r"dataset\.json has wrong or missing fields"):
        load_dataset_dir(tmp_path / "set")


def test_a_refused_save_leaves_nothing_behind(tmp_path):
    for splits, message in (
        ({}, "at least one"),
        ({"dev": make_split()}, "give at least one of"),
        ({"train": make_split(), "test": make_split().select([])}, "'test' has no queries"),
    ):
        with pytest.raises(ValueError, match=message):
            save_dataset_dir(tmp_path / "set", splits, {})
    assert list(tmp_path.iterdir()) == []
    save_dataset_dir(tmp_path / "set", {"test": make_split()}, {})
    with pytest.raises(FileExistsError, match="not empty"):
        save_dataset_dir(tmp_path / "set", {"test": make_split()}, {})


def test_link_gives_every_target_document_its_row_in_the_store(tmp_path):
    ids = ["d3", "d2", "d1", "d0"]
    documents = pa.table({"id": ids, "title": [""] * 4, "text": ids})
    store = write_store(tmp_path / "store", documents, np.eye(4, dtype=np.float32), {"name": "hand"})
    linked = make_split().link(store)
    assert linked.target_rows == [[[3, 2], [1]], [[0]]]
    assert linked[0]["target_rows"] == [[3, 2], [1]]
    assert linked.select([1])[0]["target_rows"] == [[0]]
    assert make_split().target_rows is None
    with pytest.raises(ValueError, match="d9"):
        make_split(targets=[[["d0"], ["d9"]], [["d3"]]]).link(store)


def test_a_flipped_bit_in_a_split_never_gives_another_dataset(tmp_path):
    save_dataset_dir(tmp_path / "set", {"train": make_split()}, {})
    file, draw = tmp_path / "set" / "train.parquet", random.Random(0)
    content = file.read_bytes()
    assert list(json.loads((tmp_path / "set" / "dataset.json").read_text())["checksums"]) == ["train.parquet"]
    for _ in range(100):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises((OSError, ValueError), match=r"train\.parquet"):
            load_dataset_dir(tmp_path / "set")


def test_ids_may_be_whole_numbers_and_texts_dictionaries(tmp_path):
    save_dataset_dir(tmp_path / "set", {"test": make_split()}, {})
    file = tmp_path / "set" / "test.parquet"
    table = pq.read_table(file)
    expected = load_dataset_dir(tmp_path / "set")["test"]
    numbers = pa.array(range(table.num_rows))
    table = table.set_column(table.column_names.index("query_id"), "query_id", numbers)
    if "query" in table.column_names:
        coded = table.column("query").dictionary_encode()
        table = table.set_column(table.column_names.index("query"), "query", coded)
    pq.write_table(table, file)
    (tmp_path / "set" / "dataset.json").write_text("{}")  # made by others, who keep no checksum
    found = load_dataset_dir(tmp_path / "set")["test"]
    assert found.query_ids == [str(number) for number in range(len(expected))]
    assert (found.queries, found.targets) == (expected.queries, expected.targets)


def test_half_a_character_is_refused_by_the_query():
    with pytest.raises(ValueError, match="query 'q' is not valid Unicode"):
        RetrievalDataset(["q"], [[["d"]]], [[]], ["half \ud83d"])
