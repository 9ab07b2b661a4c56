"""HotpotQA, 2WikiMultihopQA and MuSiQue from small files in the published formats; people and places are invented."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus import open_documents
from amer.data import build_2wikimultihopqa, build_hotpotqa, build_musique, load_dataset_dir
from amer.files import read_json

TOWNS = ["Arlen", "Brix", "Corvo", "Dunmere", "Eskholt"]


def hotpot_record(number: int, split: str = "train") -> dict:
    """A question about two towns among five paragraphs; those of the towns are the same in every context."""
    first, second = TOWNS[number % 5], TOWNS[(number + 1) % 5]
    return {
        "_id": f"{split}-{number}",
        "question": f"Which has more bridges in {split} year {number}, {first} or {second}?",
        "answer": first,
        "type": "comparison",
        "level": "hard",
        "supporting_facts": [[first, 1], [second, 0], [second, 1]],
        "context": [[town, [f"{town} is a town.", f" It has {len(town)} bridges."]] for town in TOWNS],
    }


def two_wiki_record(number: int, split: str = "train") -> dict:
    record = hotpot_record(number, split) | {"evidences": [[TOWNS[0], "bridges", "5"]]}
    del record["level"]
    return record


def musique_record(number: int, split: str = "train") -> dict:
    needed = {(number + step) % 5 for step in range(2 + number % 3)}
    return {
        "id": f"{2 + number % 3}hop__{split}_{number}",
        "question": f"Who built the bridge of {split} year {number}?",
        "question_decomposition": [
            {"id": index, "question": "built >> by", "answer": "Ada", "paragraph_support_idx": index}
            for index in sorted(needed)
        ],
        "paragraphs": [
            {
                "idx": index,
                "title": town,
                "paragraph_text": f"{town} is a town. It has {len(town)} bridges.",
                "is_supporting": index in needed,
            }
            for index, town in enumerate(TOWNS)
        ],
        "answer": "Ada",
        "answer_aliases": [],
        "answerable": True,
    }


def write_json(folder: Path, train: list[dict], dev: list[dict], prefix: str = "") -> Path:
    folder.mkdir()
    names = ("hotpot_train_v1.1", "hotpot_dev_distractor_v1") if prefix else ("train", "dev")
    for name, records in zip(names, (train, dev), strict=True):
        (folder / f"{name}.json").write_text(json.dumps(records))
    return folder


def write_jsonl(folder: Path, train: list[dict], dev: list[dict]) -> Path:
    folder.mkdir()
    for name, records in (("train", train), ("dev", dev)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"musique_ans_v1.0_{name}.jsonl").write_text(lines)
    return folder


def write_hub(folder: Path, train: list[dict], dev: list[dict], under: str) -> Path:
    """The Parquet files of the Hub, in which lists of pairs are records of lists."""
    (folder / under).mkdir(parents=True)
    for name, records in (("train", train), ("validation", dev)):
        rows = []
        for record in records:
            titles, sentences = zip(*record["context"], strict=True)
            named, numbers = zip(*record["supporting_facts"], strict=True)
            rows.append({
                "id": record["_id"], "question": record["question"], "answer": record["answer"],
                "supporting_facts": {"title": list(named), "sent_id": list(numbers)},
                "context": {"title": list(titles), "sentences": list(sentences)},
            })  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / under / f"{name}-00000-of-00001.parquet")
    return folder


@pytest.fixture(params=["hotpotqa", "2wiki", "hotpotqa-hub", "2wiki-hub", "musique"])
def built(request, tmp_path) -> tuple[Path, str]:
    name, _, hub = request.param.partition("-")
    make = {"hotpotqa": hotpot_record, "2wiki": two_wiki_record, "musique": musique_record}[name]
    train, dev = [make(number) for number in range(40)], [make(number, "dev") for number in range(10)]
    train.append({**train[0], ("id" if name == "musique" else "_id"): "copy", "question": dev[3]["question"]})
    if name == "musique":
        build_musique(tmp_path / "out", write_jsonl(tmp_path / "source", train, dev))
    elif hub:
        source = write_hub(tmp_path / "source", train, dev, "distractor" if name == "hotpotqa" else "data")
        (build_hotpotqa if name == "hotpotqa" else build_2wikimultihopqa)(tmp_path / "out", source)
    else:
        source = write_json(tmp_path / "source", train, dev, "hotpot" if name == "hotpotqa" else "")
        (build_hotpotqa if name == "hotpotqa" else build_2wikimultihopqa)(tmp_path / "out", source)
    return tmp_path / "out", name


def test_targets_are_the_supporting_paragraphs(built):
    path, name = built
    documents = {row["id"]: row for row in open_documents(path / "documents.parquet").to_pylist()}
    assert sorted(row["title"] for row in documents.values()) == TOWNS, "each paragraph once"
    assert {row["text"] for row in documents.values()} == {
        f"{town} is a town. It has {len(town)} bridges." for town in TOWNS
    }
    splits = load_dataset_dir(path / "dataset")
    assert {split: len(one) for split, one in splits.items()} == {"train": 38, "validation": 2, "test": 10}
    for split in splits.values():
        for query_id, query, targets in zip(split.query_ids, split.queries, split.targets, strict=True):
            number = int(query.split("year ")[1].split(",")[0].removesuffix("?"))
            hops = 2 + number % 3 if name == "musique" else 2
            assert sorted(documents[document]["title"] for (document,) in targets) == sorted(
                TOWNS[(number + step) % 5] for step in range(hops)
            )
            assert ("dev" in query_id) == ("dev" in query)
    assert all("dev" in query_id for query_id in splits["test"].query_ids)
    assert not any("dev" in query_id for query_id in splits["train"].query_ids + splits["validation"].query_ids)
    info = read_json(path / "dataset" / "dataset.json")
    assert info["drops"] == {"question of the test set": 1}
    assert info["corpus"]["documents"] == 5


def test_a_finished_build_stays_and_other_arguments_are_refused(tmp_path):
    records = [hotpot_record(number) for number in range(20)], [hotpot_record(number, "dev") for number in range(5)]
    source = write_json(tmp_path / "source", *records, "hotpot")
    build_hotpotqa(tmp_path / "out", source)
    written = (tmp_path / "out" / "documents.parquet").stat().st_mtime_ns
    build_hotpotqa(tmp_path / "out", source)
    assert (tmp_path / "out" / "documents.parquet").stat().st_mtime_ns == written
    with pytest.raises(FileExistsError, match="other arguments"):
        build_hotpotqa(tmp_path / "out", source, seed=1)


def test_questions_without_an_answer_are_dropped(tmp_path):
    train = [musique_record(number) for number in range(20)]
    train[3]["answerable"] = False
    train[4]["paragraphs"] = [one | {"is_supporting": False} for one in train[4]["paragraphs"]]
    build_musique(tmp_path / "out", write_jsonl(tmp_path / "source", train, [musique_record(0, "dev")]))
    assert read_json(tmp_path / "out" / "dataset" / "dataset.json")["drops"] == {"question without an answer": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"supporting_facts": [["Nowhere", 0]]}, "names the paragraph 'Nowhere', which is missing"),
        ({"context": None}, "not in the published format"),
        ({"context": [["Arlen", None]]}, "not in the published format"),
        ({"_id": "train-1"}, "has the id 'train-1'"),
    ],
)
def test_a_malformed_record_is_refused_by_number(tmp_path, changes, message):
    train = [hotpot_record(number) for number in range(5)]
    train[2] |= changes
    source = write_json(tmp_path / "source", train, [hotpot_record(0, "dev")])
    with pytest.raises(ValueError, match=rf"train\.json, record 3.*{message}"):
        build_hotpotqa(tmp_path / "out", source)


def test_missing_files_are_refused(tmp_path):
    source = write_json(tmp_path / "source", [hotpot_record(0)], [hotpot_record(0, "dev")])
    (source / "dev.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks HotpotQA's dev split.*dev\.json"):
        build_hotpotqa(tmp_path / "out", source)
    with pytest.raises(FileNotFoundError, match="not a local folder"):
        build_musique(tmp_path / "out", tmp_path / "nowhere")
