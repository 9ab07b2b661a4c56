"""Filters: every expression means what Python's own evaluation of it means, and what is no filter is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus import store as store_module
from amer.corpus.filters import Filter
from amer.corpus.store import DocumentStore, write_store

COUNT = 60
METADATA = {
    "year": [1980 + row % 40 for row in range(COUNT)],
    "language": [("en", "de", "日本語", 'say "yes"')[row % 4] for row in range(COUNT)],
    "length": [row / 7 for row in range(COUNT)],
    "stub": [row % 3 == 0 for row in range(COUNT)],
}
GOOD = [
    "year >= 1990",
    "year == 1990",
    "year != 1990",
    "1990 <= year < 2000",
    "1990 < year",
    "2000 > year >= 1985 and stub == False",
    "year in [1980, 1999, 3000]",
    "year not in (1980, 1999)",
    "year in []",
    "language not in []",
    'language == "de"',
    "language == '日本語'",
    "language == 'say \"yes\"'",
    "language in ['en', 'de']",
    "language > 'en'",
    "length > 3",
    "length <= 2.5 or length > 8",
    "length in [0, 1, 3]",
    "length != 2",
    "length == 9007199254740993",
    "length not in [9007199254740993, 1.0]",
    "year > -5",
    "stub == True and not (year > 1990 or language == 'en')",
    "not stub == True",
    "year > 1990 and language == 'en' or stub != True",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DocumentStore:
    names = [str(row) for row in range(COUNT)]
    documents = pa.table({"id": names, "title": names, "text": names, **METADATA})
    vectors = np.eye(COUNT, dtype=np.float32)
    return write_store(tmp_path_factory.mktemp("filters") / "store", documents, vectors, {"name": "toy"})


@pytest.mark.parametrize("expression", GOOD)
def test_a_filter_means_what_python_means(store, monkeypatch, expression):
    monkeypatch.setattr(store_module, "CHECK_BLOCK", 7)
    records = [dict(zip(METADATA, values, strict=True)) for values in zip(*METADATA.values(), strict=True)]
    expected = [bool(eval(expression, {}, record)) for record in records]
    assert DocumentStore.open(store.path).matching(expression).tolist() == expected


def test_filters_are_written_for_milvus(store):
    written = {
        "1990 <= year < 2000": "(year >= 1990) and (year < 2000)",
        "not stub == True": "not (stub == true)",
        "language in ['en', 'a\"b'] or length > .5": '(language in ["en", "a\\"b"]) or (length > 0.5)',
        "language == '日本語'": 'language == "日本語"',
        "(year > 1 or year < 0) and stub == False": "((year > 1) or (year < 0)) and (stub == false)",
    }
    for given, expected in written.items():
        assert Filter(given, store.metadata).for_milvus() == expected


@pytest.mark.parametrize(
    "expression, message",
    [
        ("", "1 to 10000 characters"),
        ("   ", "1 to 10000 characters"),
        ("year == " + "1" * 20_000, "1 to 10000 characters"),
        ("year >", "cannot be read"),
        ("year = 1990", "cannot be read"),
        ("year == 1\x00", "cannot be read"),
        ("(" * 500 + "year == 1" + ")" * 500, "cannot be read"),
        ("not " * 60 + "year == 1", "nested more than 50"),
        ("year", "'year' is not a comparison"),
        ("True", "not a comparison"),
        ("__import__('os').system('true')", "not a comparison"),
        ("year == __import__('os')", "is not a constant"),
        ("year == year", "is not a constant"),
        ("1 == 1", "not the name of a field"),
        ("year.real == 1", "not the name of a field"),
        ("month == 1", "no field 'month'.*year .int64., language .string., length .double., stub .bool."),
        ("id == '1'", "no field 'id'"),
        ("year == 'x'", "year is of type int64"),
        ("year == True", "year is of type int64"),
        ("language == 1", "language is of type string"),
        ("stub == 1", "stub is of type bool"),
        ("stub > False", "with == or != only"),
        ("language == None", "language is of type string"),
        ("language == b'en'", "language is of type string"),
        ("language == '\\ud800'", "language is of type string"),
        ("year == 9223372036854775808", "year is of type int64"),
        ("year > -9223372036854775808", "year is of type int64"),
        ("length > 1e999", "length is of type double"),
        ("length > " + "9" * 400, "length is of type double"),
        ("length == -" + "9" * 400, "length is of type double"),
        ("year in [1.5]", "year is of type int64"),
        ("year > 1999.5", "year is of type int64"),
        ("year == 1990.0", "year is of type int64"),
        ("language == '\\x00'", "language is of type string"),
        ("language == '\\x1b'", "language is of type string"),
        ("-" * 1900 + "1 == 3", "is not the name of a field"),
        ("f" + "()" * 900, "is not a comparison"),
        ("x" + ".x" * 900, "is not a comparison"),
        ("x" + "+1" * 900, "is not a comparison"),
        ("year == 1" + "+1" * 900, "is not a constant|cannot be read"),
        ("year in 5", "not supported"),
        ("year in language", "not supported"),
        ("year is 5", "not supported"),
        ("5 in year", "not the name of a field"),
        (None, "a filter is a string"),
        (5, "a filter is a string"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_what_is_no_filter_is_refused(store, expression, message):
    with pytest.raises(ValueError, match=message):
        store.matching(expression)


def test_documents_without_metadata_have_nothing_to_filter_by(tmp_path):
    documents = pa.table({"id": ["a"], "title": [""], "text": ["b"]})
    store = write_store(tmp_path / "store", documents, np.eye(1, dtype=np.float32), {"name": "toy"})
    assert store.metadata == {}
    with pytest.raises(ValueError, match="these have no metadata"):
        store.matching("year > 1990")


def test_a_filter_is_evaluated_once(store, monkeypatch):
    store = DocumentStore.open(store.path)
    first = store.matching("year > 1990")
    monkeypatch.delattr(DocumentStore, "_evaluate")
    assert store.matching("year > 1990") is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = True
