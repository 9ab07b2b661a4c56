"""Shared parts of the builders of question answering datasets."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

import amer
from amer.checksums import file_checksum
from amer.corpus.table import fingerprint
from amer.data.answer_matching import normalise_answer
from amer.data.dataset import DatasetInfo, RetrievalDataset, save_dataset_dir
from amer.data.gold import Question, Retriever, map_gold
from amer.files import atomic_write, differences, read_json, read_manifest, read_parquet, remove_leftovers
from amer.locks import RUN_FILE
from amer.text_lines import Place, read_objects

WORK = "work"  # folder beside the result: an interrupted build resumes from its files
WORK_FILES = ("part-*.json", "gold*", RUN_FILE)  # written by `build_wikipedia` and `map_gold`
DROPPED_FILE = "dropped.jsonl"
Targets = dict[str, list[list[str]]]
"""Query id -> for each answer, the ids of the documents that contain it."""


class SourceQuestion(NamedTuple):
    """A question and where it was read."""

    question: Question
    place: Place


class DroppedRecords:
    """The records a builder drops or changes: `dataset.json` counts them by reason, `dropped.jsonl` lists them."""

    def __init__(self) -> None:
        """Start without records."""
        self.records: list[dict[str, Any]] = []

    def add(self, reason: str, place: Place, **details: Any) -> None:
        """Note a record and the reason; `counts` counts equal reasons together."""
        self.records.append({"reason": reason, "file": Path(place.file).name, place.unit: place.number, **details})

    def counts(self) -> dict[str, int]:
        """The number of records for each reason."""
        return dict(sorted(Counter(record["reason"] for record in self.records).items()))

    def write(self, file: Path) -> None:
        """Write one JSON object per line."""
        with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in self.records)


def files_of_split(folder: Path, dataset: str, split: str, patterns: Sequence[str]) -> list[Path]:
    """The files of a split in a folder: those that match the first pattern with a match.

    Raises:
        FileNotFoundError: No pattern has a match. The message names dataset and split.
    """
    for pattern in patterns:
        if found := sorted(folder.glob(pattern)):
            return found
    raise FileNotFoundError(f"{folder} lacks {dataset}'s {split} split: looked for {', '.join(patterns)}")


def read_records(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Read the records of a JSON list, a JSONL file or a Parquet file.

    Raises:
        OSError: The file is truncated.
        ValueError: The file is not in the format of its suffix, or a record is not an object.
    """
    ending = file.suffix.lower()
    if ending not in (".json", ".parquet"):
        yield from read_objects(file)
        return
    records, unit = (read_json(file), "record") if ending == ".json" else (_rows(file), "row")
    if not isinstance(records, list):
        raise ValueError(f"{file} must hold a JSON list of questions, not {type(records).__name__}")
    for number, record in enumerate(records, start=1):
        place = Place(file, unit, number)
        if not isinstance(record, dict):
            raise ValueError(f"{place} must hold a JSON object, not {type(record).__name__}: {str(record)[:60]!r}")
        yield place, record


def _rows(file: Path) -> list[dict[str, Any]]:
    return read_parquet(file).to_pylist()


def usable(
    asked: Iterable[SourceQuestion], drops: DroppedRecords, least: int = 1, most: int | None = None
) -> list[SourceQuestion]:
    """Keep the questions with enough answers, and not too many, each with its distinct answers.

    Aliases are compared after normalisation, as in the documents; an alias that normalises to nothing is dropped.
    Answers with the same aliases are merged.

    Args:
        asked: The questions as they were read.
        drops: Collects the dropped questions and aliases, and the merged answers.
        least: The smallest number of distinct answers of a question.
        most: The largest number of distinct answers; None for no limit.

    Raises:
        ValueError: A question is not a string, its answers are not lists of strings, or two questions have one id.
    """
    kept: list[SourceQuestion] = []
    first: dict[str, Place] = {}
    for question, place in asked:
        if first.setdefault(question.query_id, place) != place:
            raise ValueError(f"{place} has the id of {first[question.query_id]}: ids are unique, change one of them")
        _check(question, place)
        question = question._replace(answers=_distinct(question, place, drops))
        reason = _unusable(question, least, most)
        if reason:
            drops.add(reason, place, query_id=question.query_id)
        else:
            kept.append(SourceQuestion(question, place))
    return kept


def _check(question: Question, place: Place) -> None:
    strings = [question.query, *question.searches]
    for aliases in question.answers:
        strings += aliases if isinstance(aliases, list) else [None]
    if not all(isinstance(value, str) for value in strings):
        raise ValueError(
            f"{place}: the question is {question.query!r} and its answers are {question.answers!r}; they must be a "
            "string and lists of strings"
        )


def _distinct(question: Question, place: Place, drops: DroppedRecords) -> list[list[str]]:
    """The distinct answers, each with its distinct aliases; an empty list for an answer without a usable alias."""
    query_id = question.query_id
    distinct: dict[frozenset[str], list[str]] = {}
    for aliases in question.answers:
        spellings: dict[str, str] = {}
        for alias in aliases:
            spellings.setdefault(normalise_answer(alias), alias)
        if "" in spellings:
            drops.add("empty alias", place, query_id=query_id, alias=spellings.pop(""))
        if frozenset(spellings) in distinct:
            drops.add("answer with the aliases of another, merged", place, query_id=query_id, aliases=aliases)
        distinct.setdefault(frozenset(spellings), list(spellings.values()))
    return list(distinct.values())


def _unusable(question: Question, least: int, most: int | None) -> str | None:
    """Why a question cannot be used."""
    if not question.query.strip():
        return "empty question"
    if not any(text.strip() for text in question.searches):
        return "nothing to search with"
    if not all(question.answers):
        return "answer without an alias"
    if len(question.answers) < least:
        return f"fewer than {least} distinct answers"
    if most is not None and len(question.answers) > most:
        return f"more than {most} distinct answers"
    return None


def find_gold(
    asked: Sequence[SourceQuestion],
    searches: Sequence[Retriever],
    documents: pa.Table,
    path: Path,
    depth: int,
    drops: DroppedRecords,
) -> Targets:
    """Find the gold documents (paper A.3); `drops` notes each question that has an answer without one."""
    gold = map_gold([question for question, _ in asked], searches, documents, path / WORK, depth)
    for question, place in asked:
        if question.query_id in gold.unmapped:
            missing = [question.answers[number] for number in gold.unmapped[question.query_id]]
            drops.add("answer without a document", place, query_id=question.query_id, answers=missing)
    return gold.targets


def question_key(question: Question) -> str:
    """A key that copies of a question share: its tokens, without case and question mark."""
    return normalise_answer(question.query).removesuffix(" ?")


def divide(
    asked: Sequence[SourceQuestion], fraction: float, salt: str
) -> tuple[list[SourceQuestion], list[SourceQuestion]]:
    """Split the questions into a fraction (rounded up) and the rest; copies of a question stay together.

    The fraction takes the questions with the smallest SHA-256 of salt and question. The order of the questions does
    not matter, and adding questions moves few others. To divide the rest again, use another salt: with the same one
    the choice would not be random.

    Raises:
        ValueError: The fraction is not between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"a fraction of the questions must lie between 0 and 1, got {fraction}")
    keys = {question_key(question) for question, _ in asked}
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{salt} {key}".encode()).digest())
    chosen = {*ranked[: math.ceil(fraction * len(ranked) - 1e-9)]}
    parts: tuple[list[SourceQuestion], list[SourceQuestion]] = ([], [])
    for one in asked:
        parts[question_key(one.question) not in chosen].append(one)
    return parts


def unseen(
    asked: Iterable[SourceQuestion], test: Iterable[SourceQuestion], drops: DroppedRecords
) -> list[SourceQuestion]:
    """Keep the questions that are not in the test set; `drops` notes the others."""
    tested = {question_key(question) for question, _ in test}
    kept = []
    for question, place in asked:
        if question_key(question) in tested:
            drops.add("question of the test set", place, query_id=question.query_id)
        else:
            kept.append(SourceQuestion(question, place))
    return kept


def twentieth(name: str) -> int:
    """Assign a name to one of twenty parts, 0 to 19, by its SHA-1 alone."""
    return int(hashlib.sha1(name.encode()).hexdigest(), 16) % 20


def as_split(asked: Sequence[SourceQuestion], targets: Targets) -> RetrievalDataset:
    """Make a split of the questions and their targets."""
    return RetrievalDataset(
        query_ids=[question.query_id for question, _ in asked],
        queries=[question.query for question, _ in asked],
        targets=[targets[question.query_id] for question, _ in asked],
        answers=[question.answers for question, _ in asked],
    )


def counted(stages: Mapping[str, Mapping[str, Sequence[SourceQuestion]]]) -> dict[str, dict[str, int]]:
    """The number of questions of each published split after each stage."""
    return {stage: {split: len(asked) for split, asked in parts.items()} for stage, parts in stages.items()}


def against_paper(expected: Mapping[str, float], splits: Mapping[str, RetrievalDataset]) -> dict[str, Any]:
    """The numbers of the paper's Table 1, and those of the splits."""
    answers = [len(targets) for targets in splits["test"].targets]
    found = {
        "train and validation": len(splits["train"]) + len(splits["validation"]),
        "test": len(splits["test"]),
        "targets a question": round(sum(answers) / max(len(answers), 1), 2),
    }
    return {"expected": dict(expected), "found": found}


def described(
    source: str,
    module: str,
    files: Iterable[Path],
    documents: pa.Table | None,
    searches: Sequence[Retriever],
    **arguments: Any,
) -> dict[str, Any]:
    """The description of a build for `dataset.json`, made before the build; `is_built` compares its arguments."""
    given = {
        "files": [f"{file.name} {file_checksum(file)}" for file in files],
        "documents": None if documents is None else fingerprint(documents),
        "searches": [search.name for search in searches],
        **arguments,
    }
    return {"source": source, "builder": f"{module} {amer.__version__}", "arguments": given}


def remove_work(path: Path) -> None:
    """Remove the files that a build resumes from; keep other files that happen to be in a folder of that name."""
    work = path / WORK
    remove_leftovers(work)
    for file in [file for pattern in WORK_FILES for file in work.glob(pattern)]:
        file.unlink()
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()


def is_built(path: Path, info: Mapping[str, Any]) -> bool:
    """Whether the dataset exists already; also removes the leftovers of interrupted builds.

    Raises:
        FileExistsError: The existing dataset was built with other arguments, or from other files.
    """
    remove_leftovers(path)
    if not (path / "dataset").exists():
        return False
    recorded = read_manifest(path / "dataset" / "dataset.json", DatasetInfo).get("arguments", {})
    if different := differences(recorded, info["arguments"]):
        raise FileExistsError(
            f"{path / 'dataset'} was built with other arguments ({different}): choose another path or remove it"
        )
    remove_work(path)
    return True


def finish(path: Path, splits: dict[str, RetrievalDataset], info: Mapping[str, Any], drops: DroppedRecords) -> None:
    """Write `path/dropped.jsonl`, then `path/dataset/`, then remove the work folder.

    Raises:
        ValueError: A split is empty.
    """
    drops.write(path / DROPPED_FILE)
    empty = [name for name, split in splits.items() if not len(split)]
    if empty:
        raise ValueError(
            f"no question was left for {', '.join(empty)}: {path / DROPPED_FILE} lists the dropped questions and the "
            "reasons; check that the corpus is the right one"
        )
    save_dataset_dir(path / "dataset", splits, {**info, "drops": drops.counts()})
    remove_work(path)
