from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from amer.baselines.bm25 import BM25
from amer.files import read_json, write_json

TEXTS = [
    ("Apollo 8", "The first crewed spacecraft to leave the orbit of the Earth."),
    ("Apollo 11", "The spaceflight that first landed humans on the Moon."),
    ("", "Orbiting the earth, the orbiter's crews were orbiting."),
    ("The Who", "It is not of this."),
    ("O'Brien", "a surname of Irish origin"),
    ("Moon", "the only natural satellite of the earth"),
    ("Moon", "the only natural satellite of the earth"),
]


def corpus(texts: list[tuple[str, str]] = TEXTS) -> pa.Table:
    titles, bodies = zip(*texts, strict=True)
    return pa.table({"id": [f"d{row}" for row in range(len(texts))], "title": titles, "text": bodies})


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def found(search: BM25, text: str, k: int = 5) -> list[int]:
    rows, scores = search.search([text], k)
    assert (np.isneginf(scores) == (rows == -1)).all()
    return [row for row in rows[0].tolist() if row >= 0]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bm25") / "index"
    BM25.build(corpus(), path)
    return path


@pytest.fixture(scope="module")
def search(path) -> BM25:
    return BM25.open(path, corpus())


def plain_bm25(query: list[str], documents: list[list[str]]) -> np.ndarray:
    """Lucene's formula, k1 = 0.9 and b = 0.4, word by word."""
    mean = sum(map(len, documents)) / len(documents)
    scores = np.zeros(len(documents))
    for word in query:
        frequency = sum(word in document for document in documents)
        idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
        for row, document in enumerate(documents):
            count = Counter(document)[word]
            scores[row] += idf * count / (count + 0.9 * (1 - 0.4 + 0.4 * len(document) / mean))
    return scores


def test_a_score_worked_by_hand(tmp_path):
    search = BM25.build(corpus([("red", "red blue"), ("", "green")]), tmp_path / "index")
    rows, scores = search.search(["red"], 1)
    # One of two documents has the word, ln(1 + 1.5/1.5); it stands there twice; the lengths are 3 and 1, 2 on average.
    assert rows.tolist() == [[0]]
    assert scores[0, 0] == pytest.approx(math.log(2) * 2 / (2 + 0.9 * (0.6 + 0.4 * 3 / 2)), rel=1e-6)
    assert rows.dtype == np.int64 and scores.dtype == np.float32


def test_scores_and_order_are_those_of_the_plain_formula(tmp_path):
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in range(30)]
    documents = [generator.choice(words, generator.integers(0, 12)).tolist() for _ in range(50)]
    queries = [generator.choice([*words, "unknown"], 4).tolist() for _ in range(20)]
    search = BM25.build(corpus([("", " ".join(document)) for document in documents]), tmp_path / "index")
    rows, scores = search.search([" ".join(query) for query in queries], 10)
    for query, row, score in zip(queries, rows, scores, strict=True):
        expected = plain_bm25(query, documents).astype(np.float32).round(5)  # so that equal scores are equal
        best = [place for place in np.argsort(-expected, kind="stable")[:10] if expected[place] > 0]
        assert row[row >= 0].tolist() == best
        np.testing.assert_allclose(score[row >= 0], expected[best], rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SURNAMES", [4]),  # stemmed, whatever the case
        ("orbit", [2, 0]),
        ("apollo", [1, 0]),  # in titles
        ("8", [0]),  # a single character
        ("o'brien's", [4]),
        ("brien", []),
        ("the of this, not", []),  # stop words
        ("natural", [5, 6]),  # equal documents
        ("who?", [3]),
        ("", []),
        ("Zürich 漢字", []),
    ],
)
def test_documents_are_found_by_their_words(search, text, rows):
    assert found(search, text) == rows


def test_of_equal_scores_the_lower_row_comes_first_also_at_the_end_of_the_list(tmp_path):
    search = BM25.build(corpus([("", "same words")] * 40 + [("", "same words same")]), tmp_path / "index")
    for k in (1, 2, 7, 30, 41):
        assert found(search, "same", k) == [40, *range(40)][:k]


def test_lists_are_filled_up_with_padding(search):
    rows, scores = search.search(["moon", "nothing known", "irish"], 9)
    assert rows.tolist() == [[5, 6, 1, *[-1] * 6], [-1] * 9, [4, *[-1] * 8]]
    assert np.isneginf(scores[rows == -1]).all() and (scores[rows >= 0] > 0).all()


def test_no_texts_give_no_lists(search):
    assert [array.shape for array in search.search([], 3)] == [(0, 3), (0, 3)]


def test_a_text_has_the_same_list_alone_and_among_others(search):
    texts = ["orbit of the moon", "unheard", "first apollo 11", "orbit of the moon"]
    rows, scores = search.search(texts, 4)
    for row, score, text in zip(rows, scores, texts, strict=True):
        alone = search.search([text], 4)
        np.testing.assert_array_equal([row, score], [alone[0][0], alone[1][0]])


def test_the_index_is_mapped_and_holds_no_pickle(path, search):
    assert isinstance(search._index.scores["data"], np.memmap)
    for file in path.iterdir():
        if file.suffix == ".npy":
            np.load(file, allow_pickle=False)
        else:
            read_json(file)


def test_the_same_documents_give_the_same_bytes_however_they_are_cut(path, tmp_path):
    BM25.build(pa.concat_tables([corpus().slice(0, 2), corpus().slice(2)]), tmp_path / "index")
    assert files(tmp_path / "index") == files(path)


def test_building_and_searching_print_nothing_unasked(tmp_path, capfd):
    BM25.build(corpus(), tmp_path / "index").search(["moon"], 2)
    assert capfd.readouterr() == ("", "")
    BM25.build(corpus(), tmp_path / "other", show_progress_bar=True)
    assert "Tokenize texts" in capfd.readouterr().err


def test_an_index_of_another_corpus_is_refused(path):
    with pytest.raises(ValueError, match="another documents_sha256"):
        BM25.open(path, corpus(TEXTS[::-1]))


def test_an_index_of_other_parameters_is_refused(path, tmp_path):
    shutil.copytree(path, tmp_path / "index")
    info = read_json(path / "bm25.json")
    assert (info["k1"], info["b"]) == (0.9, 0.4)
    write_json(tmp_path / "index" / "bm25.json", {**info, "k1": 1.2})
    with pytest.raises(ValueError, match="another k1"):
        BM25.open(tmp_path / "index", corpus())


def test_what_is_no_index_or_a_damaged_one_is_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        BM25.open(tmp_path, corpus())
    shutil.copytree(path, tmp_path / "index")
    data = tmp_path / "index" / "data.csc.index.npy"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(OSError, match="index is damaged"):
        BM25.open(tmp_path / "index", corpus())


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (corpus([("The", "of a"), ("", "")]), "only stop words"),
        (corpus().drop_columns("title"), "lacks the column"),
        (pa.concat_tables([corpus(), corpus()]), "ids repeat"),
    ],
)
def test_documents_that_cannot_be_indexed_leave_nothing_behind(tmp_path, documents, message):
    with pytest.raises(ValueError, match=message):
        BM25.build(documents, tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_overwritten(path):
    before = files(path)
    with pytest.raises(FileExistsError):
        BM25.build(corpus(), path)
    assert files(path) == before


def test_a_list_has_at_least_one_place(search):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        search.search(["moon"], 0)
