"""Random files of the documented formats: each is read, or refused by an error that names it."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from amer.commands.encode import read_questions
from amer.corpus import DocumentStore, open_documents
from amer.corpus.importing import import_table, import_vectors
from amer.data import build_custom, load_dataset_dir
from amer.data.dataset import RetrievalDataset, save_dataset_dir
from amer.evaluation import Run
from amer.search import load_query_embeddings

pytestmark = pytest.mark.slow
ENCODER = {"name": "toy"}
# Where in a file an error is, or that it is about all of it.
PLACE = re.compile(
    r"(line|row|record) \d|column|truncated, damaged|not a JSON file|a JSON list|holds no (question|record)"
    r"|dropped\.jsonl"
)
# Wrong types, nulls, control and odd characters, halves of characters, repeated and numeric ids.
TEXTS = st.one_of(
    st.sampled_from(["a", "7", "007", "", " ", "\0", "\u2028", "é\u0301", "\ud83d", "<eos>", "\r"]),
    st.text(max_size=6),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=5,
)
LISTS = st.one_of(
    st.lists(TEXTS, max_size=3),
    st.lists(st.lists(TEXTS, max_size=2), max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
)


def mostly(good: Any) -> Any:
    """Mostly as it should be, so that not all is refused at the first look."""
    return st.integers(0, 7).flatmap(lambda dice: VALUES if dice == 0 else good)


RECORDS = st.lists(
    st.fixed_dictionaries(
        {"query": mostly(TEXTS.map(lambda text: f"q{text}"))},
        optional={"query_id": mostly(TEXTS), "positives": mostly(LISTS), "answers": mostly(LISTS), "more": VALUES},
    ),
    max_size=4,
)
DAMAGE = st.one_of(st.just(None), st.just(None), st.tuples(st.floats(0, 1), st.integers(0, 255), st.booleans()))


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """So many examples, the same at each run."""
    chosen = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )  # fmt: skip
    return lambda test: seed(0)(chosen(test))


def damaged(content: bytes, damage: tuple[float, int, bool] | None) -> bytes:
    """Cut, or with another byte, at some part of its length."""
    if damage is None or not content:
        return content
    place = int(damage[0] * (len(content) - 1))
    return content[:place] if damage[2] else content[:place] + bytes([damage[1]]) + content[place + 1 :]


def read_or_refused(read: Callable[[Path], Any], content: bytes, name: str) -> None:
    """Let a reader have a file; what it raises is a builtin error that names the file, and the place in it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        try:
            read(file)
        except (ValueError, OSError, TypeError) as error:
            assert type(error) in (ValueError, OSError, TypeError, FileNotFoundError), repr(error)
            assert str(file) in str(error) or str(file.parent) in str(error), error
            if name.partition(".")[0] in ("q", "own", "corpus"):
                assert PLACE.search(str(error)), error


def build(source: Path) -> None:
    build_custom(source.parent / "built", source, test_fraction=0, validation_fraction=0)


def as_json(value: Any) -> str:
    return json.dumps(value)


@fuzzed(150)
@given(st.lists(st.one_of(RECORDS.map(lambda some: some[0] if some else {}), VALUES), max_size=4), DAMAGE)
def test_questions(records, damage):
    for ending, lines in ((".jsonl", map(as_json, records)), (".txt", (f"{one!s}" for one in records))):
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
        read_or_refused(read_questions, damaged(content, damage), f"q{ending}")


@fuzzed(300)
@given(RECORDS, DAMAGE, st.sampled_from([".jsonl", ".json", ".csv"]))
def test_own_records(records, damage, ending):
    if ending == ".json":
        content = as_json(records)
    elif ending == ".jsonl":
        content = "\n".join(map(as_json, records))
    else:
        with tempfile.NamedTemporaryFile("w+", newline="", encoding="utf-8", errors="surrogatepass") as stream:
            writer = csv.writer(stream)
            writer.writerow(["query", "query_id", "positives", "answers"])
            for record in records:
                lists = [as_json(record[name]) if name in record else "" for name in ("positives", "answers")]
                writer.writerow([record["query"], record.get("query_id", ""), *lists])
            stream.seek(0)
            content = stream.read()
    read_or_refused(build, damaged(content.encode("utf-8", "surrogatepass"), damage), f"own{ending}")


def as_parquet(columns: dict[str, list[Any]]) -> bytes | None:
    """A table of those columns; None where Arrow itself has no type for them."""
    try:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        return sink.getvalue().to_pybytes()
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None


def columns_of(*names: str) -> Any:
    """Columns of one type each, mostly the right one, with some nulls."""
    kinds = [TEXTS, st.integers(-9, 9), st.floats(), st.booleans(), st.binary(max_size=2), LISTS]
    column = st.integers(0, 9).flatmap(lambda dice: kinds[dice] if dice < len(kinds) else TEXTS)
    values = column.flatmap(
        lambda _: st.integers(0, 9).flatmap(
            lambda dice: st.lists(
                st.one_of(
                    kinds[dice if dice < len(kinds) else 0],
                    st.none() if dice == 9 else TEXTS if dice > 5 else kinds[dice],
                ),
                min_size=3,
                max_size=3,
            )
        )
    )
    return st.fixed_dictionaries({}, optional={name: values for name in names})


@fuzzed(150)
@given(columns_of("query", "query_id", "positives", "answers"), DAMAGE)
def test_own_tables(columns, damage):
    content = as_parquet(columns)
    if content is not None:
        read_or_refused(build, damaged(content, damage), "own.parquet")


VECTORS = st.integers(1, 9).flatmap(
    lambda dim: st.lists(
        st.lists(st.floats(-9, 9, width=32), min_size=min(dim, 2), max_size=2), min_size=3, max_size=3
    )
)


@fuzzed(200)
@given(columns_of("id", "title", "text", "year", "__index_level_0__"), VECTORS, DAMAGE)
def test_corpora(columns, vectors, damage):
    content = as_parquet({"id": ["a", "b", "c"], "title": ["", "b", "c"], "text": ["", "x", "y"], **columns})
    if content is not None:
        read_or_refused(open_documents, damaged(content, damage), "corpus.parquet")
    content = as_parquet({"id": ["a", "b", "c"], "title": [""] * 3, "text": [""] * 3, "embedding": vectors})

    def imported(file: Path) -> None:
        try:
            import_table(file.parent / "store", file, ENCODER, normalize=True, show_progress_bar=False)
        except ValueError as error:  # what is wrong with a table in memory has no file
            raise ValueError(f"{file}: {error}") from error

    if content is not None:
        read_or_refused(imported, damaged(content, damage), "table.parquet")


@fuzzed(50)
@given(
    DAMAGE, st.sampled_from(["<f4", "<f2", "<i8", "|b1", "<U3"]), st.sampled_from([(2, 3), (2,), (0, 3), (2, 3, 1)])
)
def test_npy_files(damage, dtype, shape):
    documents = pa.table({"id": ["a", "b"], "title": ["", ""], "text": ["", ""]})

    def imported(file: Path) -> None:
        try:
            import_vectors(file.parent / "store", documents, file, ENCODER, True, show_progress_bar=False)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: {error}") from error

    with tempfile.TemporaryFile() as stream:
        np.save(stream, np.ones(shape).astype(dtype))
        stream.seek(0)
        read_or_refused(imported, damaged(stream.read(), damage), "vectors.npy")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store and a dataset."""
    folder = tmp_path_factory.mktemp("made")
    documents = pa.table({"id": ["a", "b"], "title": ["", ""], "text": ["x", "y"]})
    import_vectors(folder / "store", documents, np.eye(2), ENCODER, show_progress_bar=False)
    split = RetrievalDataset(["q"], [[["a"]]], [[]], ["bank"])
    save_dataset_dir(folder / "dataset", {"train": split}, {"source": "toy"})
    return folder


def test_the_examples_above_are_read_when_nothing_is_wrong(made):
    assert len(DocumentStore.open(made / "store")) == 2
    assert load_dataset_dir(made / "dataset")["train"].queries == ["bank"]


MANIFESTS = ["store.json", "dataset.json", "documents.json", "query_embeddings.json", "run.json"]


@fuzzed(150)
@given(st.sampled_from(MANIFESTS), VALUES, st.integers(0, 30), DAMAGE)
def test_manifests(made, name, value, field, damage):
    """A field of another type, or bytes that are damaged."""
    store = DocumentStore.open(made / "store")
    readers: dict[str, Callable[[Path], Any]] = {
        "store.json": lambda file: DocumentStore.open(file.parent),
        "dataset.json": lambda file: load_dataset_dir(file.parent),
        "documents.json": lambda file: open_documents(file.parent),
        "query_embeddings.json": lambda file: load_query_embeddings(file.parent),
        "run.json": lambda file: Run.load(file.parent, store),
    }
    fields = {
        "store.json": store.info,
        "dataset.json": json.loads((made / "dataset" / "dataset.json").read_text()),
        "documents.json": {"parts": [{"file": "part-0.arrow", "documents": 1}]},
        "query_embeddings.json": {"count": 1, "num_query_vectors": 1, "dim": 2, "shard_size": 1, "checksums": ["x"]},
        "run.json": {"name": "r", "queries": 1, "k": 1, "query_embeddings": None, "store": {}},
    }[name]
    fields = dict(fields)
    fields[[*fields][field % len(fields)]] = value
    content = json.dumps(fields if field else value).encode()
    read_or_refused(readers[name], damaged(content, damage), name)


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + "]" * 100_000, '{"count": ' + "9" * 5_000 + "}", '"\\ud83d"', "\xff", "{"]
)
def test_json_that_python_cannot_hold_names_its_file(tmp_path, text):
    for name, read in (("store.json", DocumentStore.open), ("dataset.json", load_dataset_dir)):
        (tmp_path / name).write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=rf"{name} is not a JSON file"):
            read(tmp_path)
