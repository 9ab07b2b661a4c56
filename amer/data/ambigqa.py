"""AmbigQA with the multi-answer questions of NQ-Open: one target for each answer of an ambiguous question."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from amer.data.building import (
    DroppedRecords,
    SourceQuestion,
    against_paper,
    as_split,
    counted,
    described,
    divide,
    files_of_split,
    find_gold,
    finish,
    is_built,
    read_records,
    unseen,
    usable,
)
from amer.data.gold import Question, Retriever
from amer.hub import pull_folder
from amer.text_lines import id_text, list_of_texts

HUB = "sewon/ambig_qa"
SOURCE, LICENCE = "AmbigQA (AmbigNQ) and NQ-Open", "CC BY-SA 3.0"
FILES = {
    "train": ("train_light.json", "train.json", "light/train-*.parquet", "train-*.parquet"),
    "dev": ("dev_light.json", "dev.json", "light/validation-*.parquet", "validation-*.parquet"),
}
PAPER = {"train and validation": 5_044, "test": 827, "targets a question": 2.58}
NOTE = (
    "827 is 41% of the 2,002 questions of the development split, hence the 59% that A.3 spares for training. A.3 also "
    "says that half of the mapped questions are the test set, which is what is done here; the two disagree."
)


def build_ambigqa(
    path: str | os.PathLike[str],
    documents: pa.Table,
    searches: Sequence[Retriever],
    source: str | os.PathLike[str] = HUB,
    nq_open: Sequence[str | os.PathLike[str]] = (),
    depth: int = 500,
    test_fraction: float = 0.5,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> None:
    """Build AmbigQA as the paper does (A.3): `path/dataset/` and `path/dropped.jsonl`.

    The builder keeps a question if it has several answers and a search for the question finds a document for each of
    them. Half of the kept questions of AmbigQA's development split are the test set. The other half, AmbigQA's
    training split and NQ-Open are for training, without the questions of the test set; a tenth of them is the
    validation set (paper §6.1). All copies of a question are in the same split.

    In AmbigQA a target is one disambiguation, with its aliases, of the first annotation that has several. In NQ-Open
    a target is one answer string. Targets of a question with the same aliases are merged.

    An interrupted build resumes when called again; a finished one is not changed.

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        documents: The corpus, from `open_documents`.
        searches: The searches that find candidates; the paper uses BM25, Contriever and Inf-Retriever.
        source: A name on the Hub, or a folder with a clone of the Hub repository or the published JSON files.
        nq_open: NQ-Open's development and test files, JSONL or JSON lists.
        depth: Number of candidates of each search.
        test_fraction: Share of the mapped development questions for the test set.
        validation_fraction: Share of the training questions for the validation set.
        seed: Seed of both random choices.

    Raises:
        FileNotFoundError: A file or a split is missing.
        FileExistsError: `path` holds a dataset of other arguments.
        OSError: A file is truncated.
        ValueError: A record is malformed (the message names file and record), or a split is empty.
    """
    path, folder = Path(path), pull_folder(source)
    files = {split: files_of_split(folder, "AmbigQA", split, patterns) for split, patterns in FILES.items()}
    files["nq_open"] = [Path(file) for file in nq_open]
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    all_files = [file for split in files.values() for file in split]
    info = described(SOURCE, __name__, all_files, documents, searches, depth=depth, seed=seed, **fractions)
    if is_built(path, info):
        return
    drops = DroppedRecords()
    read = {split: [asked for file in files[split] for asked in _read(file, split)] for split in files}
    several = {split: usable(asked, drops, least=2) for split, asked in read.items()}
    targets = find_gold([one for asked in several.values() for one in asked], searches, documents, path, depth, drops)
    mapped = {split: [one for one in asked if one.question.query_id in targets] for split, asked in several.items()}
    test, rest = divide(mapped["dev"], test_fraction, f"test {seed}")
    train = unseen(mapped["train"] + rest + mapped["nq_open"], test, drops)
    validation, train = divide(train, validation_fraction, f"validation {seed}")
    chosen = {"train": train, "validation": validation, "test": test}
    splits = {name: as_split(asked, targets) for name, asked in chosen.items()}
    stages = {"read": read, "several answers": several, "mapped": mapped}
    paper = against_paper(PAPER, splits) | {"note": NOTE}
    finish(path, splits, info | {"licence": LICENCE, "stages": counted(stages), "paper": paper}, drops)


def _read(file: Path, split: str) -> Iterator[SourceQuestion]:
    """Read the questions of a file, with any number of answers."""
    for place, record in read_records(file):
        try:
            query = record["question"]
            if split == "nq_open":
                name, answers = (
                    id_text(record.get("id", f"{file.name}:{place.number}")),
                    [[one] for one in list_of_texts(record["answer"])],
                )
            else:
                name, answers = id_text(record["id"]), _answers(record["annotations"])
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise ValueError(f"{place} is not in the published format ({error!r}): {str(record)[:80]}") from error
        yield SourceQuestion(Question(f"{split}:{name}", query, answers, [query]), place)


def _answers(annotations: Any) -> list[list[str]]:
    """The aliases of every answer of the first annotation with several answers, or of the only answer."""
    annotations = _as_records(annotations)
    for annotation in annotations:
        if annotation["type"] == "multipleQAs":
            return [pair["answer"] for pair in _as_records(annotation["qaPairs"])]
    return [next(one["answer"] for one in annotations if one["type"] == "singleAnswer")]


def _as_records(value: Any) -> list[dict[str, Any]]:
    """Return a list of records; the Hub's files have a record of lists instead."""
    if isinstance(value, dict):
        return [dict(zip(value, fields, strict=True)) for fields in zip(*value.values(), strict=True)]
    return value
