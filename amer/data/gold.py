"""Gold documents for questions that have answers only: retrieved candidates that contain an answer (paper A.3)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from amer.corpus.documents import take_documents
from amer.corpus.table import fingerprint
from amer.data.answer_matching import AnswerMatcher
from amer.data.dataset import CLUSTERS
from amer.files import atomic_write, read_parquet, write_json
from amer.locks import share_directory

GOLD_FILE = "gold.json"
PART = 256  # questions of a part: the most work a kill can lose, and how many share a pass over a store


class Question(NamedTuple):
    """A question to be mapped.

    Attributes:
        query_id: unique.
        query: its text.
        answers: its answers, each a list of aliases.
        searches: the texts to search candidates with: the question (AmbigQA), or one snippet an answer (QAMPARI).
    """

    query_id: str
    query: str
    answers: list[list[str]]
    searches: list[str]


class Retriever(Protocol):
    """What finds candidates; `BM25` and `DenseRetriever` of `amer.baselines` do."""

    name: str

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows `(n, k)` int64, -1 where there are no more, and scores `(n, k)` float32 of the k best of each text."""


@dataclass(frozen=True)
class GoldMap:
    """Gold documents of questions.

    Attributes:
        targets: of each question whose every answer has a document: per answer the ids of all of them, in the order of
            the corpus.
        unmapped: of every other question: which answers, from 0, have none.
    """

    targets: dict[str, list[list[str]]]
    unmapped: dict[str, list[int]]


def map_gold(
    questions: Sequence[Question],
    searches: Sequence[Retriever],
    documents: pa.Table,
    folder: str | os.PathLike[str],
    depth: int = 500,
    show_progress_bar: bool = True,
) -> GoldMap:
    """Find the documents that contain the answers (paper A.3).

    A question's candidates are the top `depth` of each of its texts in each search, all in one set. A candidate is a
    gold document of an answer if its title and text, as they are retrieved, contain one of the answer's aliases.

    Every part of the questions is written whole or not at all, so a run killed at any moment and called again gives
    the same bytes as an unbroken one. What is finished is read.

    Args:
        questions: with their answers and what to search for.
        searches: over the rows of `documents`.
        documents: columns `id`, `title`, `text`.
        folder: new, empty, or left by an earlier call with the same arguments.
        depth: candidates of each text in each search.
        show_progress_bar: show how many questions are done.

    Raises:
        ValueError: `folder` holds another mapping; a question without what it needs; no or equal searches; depth < 1.
        FileExistsError: `folder` holds other files.
    """
    folder = Path(folder)
    _check_searches(searches, depth)
    matchers = _matchers(questions)
    info = {
        "questions_sha256": hashlib.sha256(json.dumps(list(questions)).encode()).hexdigest(),
        "searches": [search.name for search in searches],
        "depth": depth,
        "documents_sha256": fingerprint(documents),
    }
    starts = range(0, len(questions), PART)
    files = [folder / f"gold-{index:05d}-of-{len(starts):05d}.parquet" for index in range(len(starts))]
    with share_directory(folder, GOLD_FILE, info):
        with tqdm(total=len(questions), desc="Mapping", unit="question", disable=not show_progress_bar) as progress:
            for start, file in zip(starts, files, strict=True):
                part = slice(start, start + PART)
                if not file.is_file():
                    candidates = _candidates(questions[part], searches, depth)
                    gold = [_gold(*pair, documents) for pair in zip(matchers[part], candidates, strict=True)]
                    names = [question.query_id for question in questions[part]]
                    table = pa.table({"query_id": names, "targets": pa.array(gold, CLUSTERS)})
                    with atomic_write(file) as temporary:
                        pq.write_table(table, temporary, compression="zstd", use_dictionary=False)
                progress.update(len(questions[part]))
        mapped = _read(files)
        write_json(folder / GOLD_FILE, {**info, "mapped": len(mapped.targets), "unmapped": len(mapped.unmapped)})
    return mapped


def _candidates(questions: Sequence[Question], searches: Sequence[Retriever], depth: int) -> list[np.ndarray]:
    """The rows found for each question, each once, in the order of the corpus."""
    texts = [text for question in questions for text in question.searches]
    found = np.concatenate([search.search(texts, depth)[0] for search in searches], axis=1)
    ends = np.cumsum([len(question.searches) for question in questions])
    return [np.unique(rows[rows >= 0]) for rows in np.split(found, ends[:-1])]


def _gold(matcher: AnswerMatcher, rows: np.ndarray, documents: pa.Table) -> list[list[str]]:
    """Per answer the ids of the candidates that contain it, in the title or the text: both are what is retrieved."""
    candidates = take_documents(documents, rows)
    covered = matcher.covers([f"{candidate['title']} {candidate['text']}" for candidate in candidates])
    return [[candidates[place]["id"] for place in np.flatnonzero(column)] for column in covered.T]


def _read(files: Iterable[Path]) -> GoldMap:
    targets, unmapped = {}, {}
    for record in (record for file in files for record in read_parquet(file).to_pylist()):
        missing = [number for number, ids in enumerate(record["targets"]) if not ids]
        if missing:
            unmapped[record["query_id"]] = missing
        else:
            targets[record["query_id"]] = record["targets"]
    return GoldMap(targets, unmapped)


def _matchers(questions: Sequence[Question]) -> list[AnswerMatcher]:
    """One a question, after all of them are checked; ValueError names the question."""
    if not len(questions):
        raise ValueError("no question was given: pass at least one")
    matchers: dict[str, AnswerMatcher] = {}
    for question in questions:
        if question.query_id in matchers:
            raise ValueError(f"query_id {question.query_id!r} is used twice: query ids are unique")
        if isinstance(question.searches, str) or not len(question.searches):
            raise ValueError(f"question {question.query_id!r} has the searches {question.searches!r}: give some texts")
        try:
            matchers[question.query_id] = AnswerMatcher(question.answers)
        except ValueError as error:
            raise ValueError(f"question {question.query_id!r}: {error}") from error
    return list(matchers.values())


def _check_searches(searches: Sequence[Retriever], depth: int) -> None:
    names = [search.name for search in searches]
    if not names or len({*names}) < len(names):
        raise ValueError(f"the searches are {names}: give at least one, each with a name of its own")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
