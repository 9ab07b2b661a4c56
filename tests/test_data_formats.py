"""Every cell of the table in docs/data-formats.md."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.commands.encode import read_questions
from amer.corpus import open_documents
from amer.corpus.importing import import_vectors
from amer.data import build_custom, load_dataset_dir
from amer.data.building import DROPPED_FILE

PAGE = Path(__file__).parents[1] / "docs" / "data-formats.md"
TEXTS = ["bank", "river"]
RECORDS = [{"query": text, "positives": [f"about {text}"], "query_id": f"q{text}"} for text in TEXTS]
DOCUMENTS = pa.table({"id": ["7", "007"], "title": ["", "b"], "text": ["one", "two"]})
LONG = "long " * 40_000
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
DOCUMENT_LINES = "".join(json.dumps(record) + "\n" for record in DOCUMENTS.to_pylist())
CSV = "query_id,query,positives\n" + "".join(
    f'q{text},{text},"[""about {text}""]"\n' for text in TEXTS
)  # fmt: skip


def table() -> dict[tuple[str, str], str]:
    """What the page says, by row and reader."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    readers = rows[0][1:]
    return {(row[0], reader): cell for row in rows[2:] for reader, cell in zip(readers, row[1:], strict=True)}


# --------------------------------------------------------------------------------- what a reader makes of a file


def questions(file: Path, expected: list[str] = TEXTS) -> str:
    assert read_questions(file) == expected
    return "read"


def splits_of(source: Path, documents: pa.Table | None = None) -> dict[str, Any]:
    built = source.parent / "built"
    build_custom(built, source, documents, test_fraction=0, validation_fraction=0)
    return load_dataset_dir(built / "dataset")


def own(file: Path) -> str:
    (split,) = splits_of(file).values()
    assert (split.queries, split.query_ids) == (TEXTS, ["qbank", "qriver"])
    assert split.targets == [[["d0"]], [["d1"]]]
    return "read"


def corpus(file: Path) -> str:
    found = open_documents(file)
    assert found.select(["id", "title", "text"]).to_pylist() == DOCUMENTS.to_pylist()
    return "read"


def vectors(file: Path) -> str:
    store = import_vectors(
        file.parent / "store", DOCUMENTS, file, {"name": "toy"}, dtype="float32", show_progress_bar=False
    )
    assert np.array_equal(store.vectors([0, 1]), np.eye(2, 3))
    return "read"


READERS: dict[str, Callable[[Path], str]] = {
    "questions": questions,
    "own": own,
    "corpus": corpus,
    "vectors": vectors,
}  # fmt: skip


def write(file: Path, lines: str = LINES) -> Path:
    """What a file of that ending should hold; `lines` are those of JSON."""
    name = file.name.lower()
    text = {".txt": "\n".join(TEXTS), ".jsonl": lines, ".json": json.dumps(RECORDS), ".csv": CSV}
    if name.endswith(".gz"):
        file.write_bytes(gzip.compress(text[Path(name.removesuffix(".gz")).suffix].encode()))
    elif name.endswith(".arrow"):
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, DOCUMENTS.schema) as out:
            out.write_table(DOCUMENTS)
    elif name.endswith(".npy"):
        with file.open("wb") as stream:
            np.save(stream, np.eye(2, 3, dtype=np.float32))
    elif name.endswith(".faiss"):
        faiss = pytest.importorskip("faiss")
        index = faiss.IndexFlatIP(3)
        index.add(np.eye(2, 3, dtype=np.float32))
        faiss.write_index(index, str(file))
    else:
        file.write_text(text.get(Path(name).suffix, LINES), encoding="utf-8")
    return file


def parquet(file: Path, content: Any) -> Path:
    pq.write_table(content if isinstance(content, pa.Table) else pa.Table.from_pylist(content), file)
    return file


def of_ending(ending: str) -> Callable[[str, Path], str]:
    def case(reader: str, folder: Path) -> str:
        file = folder / f"file{ending}"
        if ending.lower() == ".parquet":
            parquet(file, RECORDS if reader == "own" else DOCUMENTS)
        else:
            write(file, DOCUMENT_LINES if reader == "corpus" else LINES)
        return READERS[reader](file)

    return case


# ------------------------------------------------------------------------------------------------ the rows, one by one

USUAL = {"questions": ".jsonl", "own": ".csv", "corpus": ".parquet", "vectors": ".npy"}


def capitals(reader: str, folder: Path) -> str:
    return of_ending(USUAL[reader].upper())(reader, folder)


def zipped(reader: str, folder: Path) -> str:
    words = set()
    for ending in (".txt.gz", ".jsonl.gz", ".csv.gz"):
        known = {
            "questions": ending != ".csv.gz",
            "own": ending != ".txt.gz",
            "corpus": ending == ".jsonl.gz",
        }.get(reader, True)
        if known:
            (folder / ending).mkdir()
            words.add(of_ending(ending)(reader, folder / ending))
    (word,) = words
    return word


def pieces(reader: str, folder: Path) -> str:
    source = folder / "source"
    (source / "data").mkdir(parents=True)
    for number, record in enumerate(RECORDS):
        parquet(source / "data" / f"train-0000{number}-of-00002.parquet", [{**record, "query_id": None}])
    (source / "dataset_infos.json").write_text("{}")
    split = splits_of(source)["train"]
    assert (split.queries, split.query_ids) == (TEXTS, ["train-1", "train-2"])
    (source / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="all pieces of one"):
        splits_of(source)
    return "read"


def marked(reader: str, folder: Path) -> str:
    words = set()
    for ending in {"questions": (".txt", ".jsonl"), "own": (".csv", ".jsonl", ".json")}[reader]:
        (folder / ending).mkdir()
        file = write(folder / ending / f"file{ending}")
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"query_id,query,", b'"query_id","query",'))
        words.add(READERS[reader](file))
    (word,) = words
    return word


def encoded(reader: str, folder: Path) -> str:
    file = write(folder / f"file{USUAL[reader]}")
    file.write_bytes(file.read_bytes().replace(b"river", b"riv\xe8re"))
    return READERS[reader](file)


def half(reader: str, folder: Path) -> str:
    file = write(folder / f"file{USUAL[reader]}")
    file.write_text(file.read_text().replace("about river" if reader == "own" else "river", "\\ud83d"))
    return READERS[reader](file)


def blank(reader: str, folder: Path) -> str:
    for ending in {"questions": (".txt", ".jsonl"), "own": (".csv", ".jsonl")}[reader]:
        (folder / ending).mkdir()
        file = write(folder / ending / f"file{ending}")
        lines = file.read_text().splitlines()
        file.write_text("\n".join([*lines[:-1], " \t", "", lines[-1], "", ""]))
        assert READERS[reader](file) == "read"
    return "skipped"


def cut(reader: str, folder: Path) -> str:
    ending = {"questions": ".jsonl.gz", "own": ".jsonl.gz"}.get(reader, USUAL[reader])
    file = folder / f"file{ending}"
    file = parquet(file, DOCUMENTS) if ending == ".parquet" else write(file)
    file.write_bytes(file.read_bytes()[: -min(20, file.stat().st_size // 2)])
    return READERS[reader](file)


def empty(reader: str, folder: Path) -> str:
    file = folder / f"file{USUAL[reader]}"
    file.write_bytes(b"")
    return READERS[reader](file)


def no_question(reader: str, folder: Path) -> str:
    for number, value in enumerate(["", " ", None, 7, "absent"]):
        record = {key: kept for key, kept in {**RECORDS[0], "query": value}.items() if kept != "absent"}
        (folder / str(number)).mkdir()
        file = folder / str(number) / "file.jsonl"
        file.write_text(LINES + json.dumps({**record, "query_id": "third"}) + "\n")
        with pytest.raises(ValueError, match=r"file\.jsonl, line 3"):
            READERS[reader](file)
    raise ValueError(str(folder))


def semicolons(reader: str, folder: Path) -> str:
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        (folder / name).mkdir()
        file = folder / name / "file.csv"
        file.write_text(CSV.replace(",", sign))
        with pytest.raises(ValueError, match=rf"file\.csv seems to be separated by {name}"):
            own(file)
    raise ValueError(str(folder))


def long_cells(reader: str, folder: Path) -> str:
    if reader == "own":
        file = folder / "file.csv"
        file.write_text(CSV.replace("about river", LONG))
        assert own(file) == "read"
        return (
            "read"
            if LONG in (folder / "built" / "documents.parquet").read_bytes().decode("latin-1")
            or (pq.read_table(folder / "built" / "documents.parquet")["text"][1].as_py() == LONG)
            else "cut"
        )
    long = DOCUMENTS.set_column(2, "text", [[LONG, "two"]])
    return "read" if open_documents(parquet(folder / "d.parquet", long))["text"][0].as_py() == LONG else "cut"


def unknown_fields(reader: str, folder: Path) -> str:
    file = folder / "file.jsonl"
    file.write_text("".join(json.dumps({**record, "year": [{}]}) + "\n" for record in RECORDS))
    if reader == "corpus":
        found = open_documents(parquet(folder / "d.parquet", DOCUMENTS.append_column("year", [[1, 2]])))
        assert found.column_names == ["id", "title", "text", "year"]
        return "kept as metadata"
    return READERS[reader](file).replace("read", "ignored")


def pandas_index(reader: str, folder: Path) -> str:
    file = folder / "file.parquet"
    source = pd.DataFrame(RECORDS) if reader == "own" else DOCUMENTS.to_pandas()
    source.index = pd.Index([9, 4])
    source.to_parquet(file)
    assert "__index_level_0__" in pq.read_schema(file).names
    assert READERS[reader](file) == "read"
    return "kept" if reader == "corpus" and open_documents(file).num_columns != 3 else "ignored"


def strings(reader: str, folder: Path) -> str:
    words = set()
    for number, kind in enumerate([pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.large_string()]):
        (folder / str(number)).mkdir()
        content = pa.Table.from_pylist(RECORDS) if reader == "own" else DOCUMENTS
        for name in ("query_id", "query") if reader == "own" else ("id", "title", "text"):
            place = content.column_names.index(name)
            content = content.set_column(place, name, content.column(name).cast(kind))
        file = folder / str(number) / ("file.parquet" if number else "file.arrow")
        if reader == "own" and not number:
            continue  # Parquet files hold no views
        if number:
            parquet(file, content)
        else:
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, content.schema) as out:
                out.write_table(content)
        words.add(READERS[reader](file))
    (word,) = words
    return word


def whole_ids(reader: str, folder: Path) -> str:
    numbers = pa.table({"id": [7, 8], "title": ["", ""], "text": ["one", "two"]})
    if reader == "corpus":
        assert open_documents(parquet(folder / "d.parquet", numbers))["id"].to_pylist() == ["7", "8"]
        assert open_documents(parquet(folder / "e.parquet", DOCUMENTS))["id"].to_pylist() == ["7", "007"]
        return "read"
    for number, (documents, positives) in enumerate([(numbers, [7, "8"]), (DOCUMENTS, [7, "007"])]):
        (folder / str(number)).mkdir()
        file = folder / str(number) / "file.jsonl"
        file.write_text(json.dumps({"query": "bank", "query_id": 3, "positives": positives}))
        (split,) = splits_of(file, documents).values()
        assert (split.query_ids, split.targets) == (["3"], [[[str(one)] for one in positives]])
    return "read"


def other_ids(reader: str, folder: Path) -> str:
    for number, one in enumerate([7.0, True]):
        (folder / str(number)).mkdir()
        with pytest.raises(ValueError, match=r"file\.(jsonl, line 3|parquet)"):
            if reader == "own":
                record = {"query": "x", "query_id": one, "positives": ["a"]}
                file = folder / str(number) / "file.jsonl"
                file.write_text(LINES + json.dumps(record))
                own(file)
            else:
                ids = pa.table({"id": [one], "title": [""], "text": [""]})
                corpus(parquet(folder / str(number) / "file.parquet", ids))
    raise ValueError(str(folder))


def repeated(reader: str, folder: Path) -> str:
    if reader == "own":
        file = folder / "file.jsonl"
        file.write_text(LINES + LINES)
        return own(file)
    file = parquet(folder / "d.parquet", DOCUMENTS.set_column(0, "id", [["a", "a"]]))
    np.save(folder / "v.npy", np.eye(2, 3))
    try:
        import_vectors(folder / "s", open_documents(file), folder / "v.npy", {"name": "t"}, show_progress_bar=False)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return "read"


def missing_id(reader: str, folder: Path) -> str:
    if reader == "corpus":
        return corpus(parquet(folder / "d.parquet", DOCUMENTS.set_column(0, "id", [["a", None]])))
    file = folder / "file.jsonl"
    records = [
        {"query": text, "positives": ["a"], "query_id": given} for text, given in zip(TEXTS, [None, ""], strict=True)
    ]
    file.write_text("\n".join(json.dumps(record) for record in records))
    (split,) = splits_of(file).values()
    assert split.query_ids == ["query-1", "query-2"]
    return "numbered"


def nulls(reader: str, folder: Path) -> str:
    for name, advice in (("title", "empty string"), ("text", "empty string"), ("year", "drop the column")):
        content = DOCUMENTS.append_column("year", [[1990, 1991]])
        place = content.column_names.index(name)
        content = content.set_column(place, name, [[content.column(name)[0].as_py(), None]])
        file = parquet(folder / f"{name}.parquet", content)
        np.save(folder / "v.npy", np.eye(2, 3))
        with pytest.raises(ValueError, match=rf"null in column\(s\) {name}: 1 nulls, first in row 2; .*{advice}"):
            import_vectors(
                folder / "s", open_documents(file), folder / "v.npy", {"name": "t"}, show_progress_bar=False
            )
    raise ValueError(str(folder))


def text_for_list(reader: str, folder: Path) -> str:
    for name in ("positives", "answers"):
        (folder / name).mkdir()
        file = folder / name / "file.jsonl"
        file.write_text(LINES + json.dumps({"query": "x", name: "P5"}))
        with pytest.raises(ValueError, match=rf"file\.jsonl, line 3: {name} is .*P5"):
            own(file)
    raise ValueError(str(folder))


def empty_lists(reader: str, folder: Path) -> str:
    for number, value in enumerate([[], [[]], [None], [["a", None]], [""]]):
        (folder / str(number)).mkdir()
        file = folder / str(number) / "file.jsonl"
        file.write_text(LINES + json.dumps({"query": "x", "positives": value}))
        with pytest.raises(ValueError, match=r"file\.jsonl, line 3: positives is"):
            own(file)
    raise ValueError(str(folder))


def equal_positives(reader: str, folder: Path) -> str:
    file = folder / "file.jsonl"
    file.write_text(json.dumps({"query": "x", "query_id": "q", "positives": ["t1", "t1", ["t1", "t1"], ["t1", "t2"]]}))
    (split,) = splits_of(file).values()
    assert split.targets == [[["d0"], ["d0", "d1"]]] and split.answers == [[]]
    notes = [json.loads(line) for line in (folder / "built" / DROPPED_FILE).read_text().splitlines()]
    assert [note["reason"] for note in notes] == ["positive with the documents of another, merged"] * 2
    return "merged"


def bad_vectors(reader: str, folder: Path) -> str:
    for number, value in enumerate([0, np.nan]):
        rows = np.eye(2, 3)
        rows[1] = value
        np.save(folder / f"{number}.npy", rows)
        with pytest.raises(ValueError, match="row 1"):
            vectors(folder / f"{number}.npy")
    raise ValueError(str(folder))


CASES: dict[str, Callable[[str, Path], str]] = {
    "`.txt`": of_ending(".txt"),
    "`.jsonl`": of_ending(".jsonl"),
    "`.json`, a list of records": of_ending(".json"),
    "`.csv`": of_ending(".csv"),
    "`.parquet`": of_ending(".parquet"),
    "`.arrow`, Arrow's file format": of_ending(".arrow"),
    "`.npy`": of_ending(".npy"),
    "a FAISS index, any other ending": of_ending(".faiss"),
    "`.gz` behind `.txt`, `.jsonl`, `.csv`, where these are read": zipped,
    "an ending in capitals": capitals,
    "any other ending (`.ndjson`, `.tsv`)": of_ending(".ndjson"),
    "splits: `train.jsonl`, or `data/train-00000-of-00002.parquet`": pieces,
    "UTF-8 with a byte-order mark": marked,
    "another encoding": encoded,
    'half a character (`"\\ud83d"`)': half,
    "a line of white space": blank,
    "a file cut short": cut,
    "an empty file": empty,
    "an empty question, or none": no_question,
    "`;` or tabs between the cells of a CSV file": semicolons,
    "a cell of more than 131,072 characters": long_cells,
    "fields that are not known": unknown_fields,
    "the index of pandas, `__index_level_0__`": pandas_index,
    "strings as views, dictionaries, large strings": strings,
    'an id that is a whole number: 7 is "7", and not "007"': whole_ids,
    "an id that is another number, or true": other_ids,
    "an id that repeats": repeated,
    "an id that is missing": missing_id,
    "null in `title`, `text` or metadata": nulls,
    "a text where a list belongs": text_for_list,
    "an empty list, or null in a list": empty_lists,
    "two `positives` of the same documents": equal_positives,
    "a vector that is zero or NaN": bad_vectors,
}
CELLS = table()


def test_every_row_has_a_case():
    assert [row for row, _ in CELLS][:: len(READERS)] == list(CASES)


@pytest.mark.parametrize(("row", "reader"), [cell for cell, word in CELLS.items() if word != "—"])
def test_a_reader_does_what_the_page_says(row, reader, tmp_path):
    try:
        found = CASES[row](reader, tmp_path)
    except (ValueError, OSError) as error:
        assert re.search(re.escape(str(tmp_path)), str(error)), error
        found = "refused"
    assert found == CELLS[row, reader]
