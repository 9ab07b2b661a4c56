"""Finds gold documents for questions that have answers only: candidates that contain an answer (paper A.3)."""

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
PART = 256  # questions per part: an interruption loses at most this work, and they share a pass over a store


class Question(NamedTuple):
    """A question whose gold documents are to be found.

    Attributes:
        query_id: Unique id.
        query: Text of the question.
        answers: The answers, each a list of aliases.
        searches: The texts to search candidates with: the question (AmbigQA), or one snippet per answer (QAMPARI).
    """

    query_id: str
    query: str
    answers: list[list[str]]
    searches: list[str]


class Retriever(Protocol):
    """A search for candidates; `BM25` and `DenseRetriever` of `amer.baselines` implement it."""

    name: str

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search k documents per text: rows `(n, k)` int64, -1 after the last one, and scores `(n, k)` float32."""


@dataclass(frozen=True)
class GoldMap:
    """Gold documents of questions.

    Attributes:
        targets: For each question with a document for every answer: the ids of the documents of each answer, in the
            order of the corpus.
        unmapped: For every other question: the numbers, from 0, of the answers without a document.
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

    The candidates of a question are the top `depth` documents for each of its texts in each search. A candidate is a
    gold document of an answer if its title and text contain one of the answer's aliases.

    Each part of the questions is written whole or not at all. If a run is interrupted, call it again: it resumes, and
    writes the same bytes as an uninterrupted run.

    Args:
        questions: The questions, with answers and search texts.
        searches: Searches over the rows of `documents`.
        documents: Table with the columns `id`, `title`, `text`.
        folder: A folder that is new, empty, or left by an earlier call with the same arguments.
        depth: Number of candidates of each text in each search.
        show_progress_bar: Show how many questions are done.

    Raises:
        ValueError: `folder` holds another mapping, a question is incomplete, there are no searches or two of one name,
            or depth < 1.
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
    """The distinct rows found for each question, in the order of the corpus."""
    texts = [text for question in questions for text in question.searches]
    found = np.concatenate([search.search(texts, depth)[0] for search in searches], axis=1)
    ends = np.cumsum([len(question.searches) for question in questions])
    return [np.unique(rows[rows >= 0]) for rows in np.split(found, ends[:-1])]


def _gold(matcher: AnswerMatcher, rows: np.ndarray, documents: pa.Table) -> list[list[str]]:
    """For each answer, the ids of the candidates that contain it in title and text."""
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
    """Check the questions and make one matcher per question; a ValueError names the question."""
    if not len(questions):
        raise ValueError("no question was given: give at least one")
    matchers: dict[str, AnswerMatcher] = {}
    for question in questions:
        if question.query_id in matchers:
            raise ValueError(f"query_id {question.query_id!r} is used twice: query ids are unique")
        if isinstance(question.searches, str) or not len(question.searches):
            raise ValueError(
                f"question {question.query_id!r} has the searches {question.searches!r}: give a list of texts"
            )
        try:
            matchers[question.query_id] = AnswerMatcher(question.answers)
        except ValueError as error:
            raise ValueError(f"question {question.query_id!r}: {error}") from error
    return list(matchers.values())


def _check_searches(searches: Sequence[Retriever], depth: int) -> None:
    names = [search.name for search in searches]
    if not names or len({*names}) < len(names):
        raise ValueError(f"the searches are {names}: give at least one, with different names")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
