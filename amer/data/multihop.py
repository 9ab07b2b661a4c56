"""HotpotQA, 2WikiMultihopQA and MuSiQue: the targets are the two to four paragraphs that a question needs.

The three differ in how a record names its paragraphs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

import amer
from amer.checksums import file_checksum
from amer.corpus.table import COLUMNS
from amer.data.building import (
    DroppedRecords,
    SourceQuestion,
    Targets,
    as_split,
    divide,
    files_of_split,
    finish,
    is_built,
    read_records,
    unseen,
)
from amer.data.gold import Question
from amer.files import atomic_write
from amer.hub import pull_folder
from amer.text_lines import id_text

HOTPOTQA, TWO_WIKI, MUSIQUE = "hotpotqa/hotpot_qa", "framolfese/2WikiMultihopQA", "dgslibisey/MuSiQue"
FILES = {
    "train": (
        "hotpot_train_*.json", "musique_ans_*_train.jsonl", "train.json", "train.jsonl", "distractor/train-*.parquet",
        "data/train-*.parquet", "train*.parquet",
    ),
    "dev": (
        "hotpot_dev_distractor_*.json", "musique_ans_*_dev.jsonl", "dev.json", "dev.jsonl",
        "distractor/validation-*.parquet", "data/validation-*.parquet", "validation*.parquet", "dev*.parquet",
    ),
}  # fmt: skip
"""File names published by the authors and on the Hub; the first pattern with a match is read."""


class Paragraph(NamedTuple):
    """A paragraph of a question's context, and whether the question needs it."""

    title: str
    text: str
    is_supporting: bool


def build_hotpotqa(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str] = HOTPOTQA,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> None:
    """Build HotpotQA (distractor setting): `path/dataset/`, `path/documents.parquet`, `path/dropped.jsonl`.

    The targets are the paragraphs with a supporting fact. The documents are all paragraphs of all contexts, each once.
    The test set is the published development split, because the published test set names no paragraphs. A fraction of
    the training questions is the validation set. All copies of a question are in the same split.

    A finished build is not changed.

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        source: A name on the Hub, or a folder with a clone of the Hub repository or the published files, whose names
            begin with `hotpot_train` and `hotpot_dev_distractor`.
        validation_fraction: Share of the training questions for the validation set.
        seed: Seed of the choice of the validation questions.

    Raises:
        FileNotFoundError: A split is missing.
        FileExistsError: `path` holds a dataset of other arguments.
        OSError: A file is truncated.
        ValueError: A record is malformed (the message names file and record), or a split is empty.
    """
    _build(Path(path), source, "HotpotQA", "CC BY-SA 4.0", _sentences, validation_fraction, seed)


def build_2wikimultihopqa(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str] = TWO_WIKI,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> None:
    """Build 2WikiMultihopQA from `train.json` and `dev.json` or from the Hub; the rest is as in `build_hotpotqa`."""
    _build(Path(path), source, "2WikiMultihopQA", "Apache-2.0", _sentences, validation_fraction, seed)


def build_musique(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str] = MUSIQUE,
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> None:
    """Build MuSiQue-Answerable from `musique_ans_v1.0_{train,dev}.jsonl` or from the Hub.

    The targets are the paragraphs marked as supporting. The rest is as in `build_hotpotqa`.
    """
    _build(Path(path), source, "MuSiQue", "CC BY 4.0", _paragraphs, validation_fraction, seed)


def _sentences(record: Mapping[str, Any]) -> Iterator[Paragraph]:
    """The paragraphs in HotpotQA and 2WikiMultihopQA: titles with sentences; a fact names a title and a sentence."""
    context, facts = record["context"], record["supporting_facts"]
    if isinstance(context, dict):  # the Hub's files have a record of lists instead of a list
        context = list(zip(context["title"], context["sentences"], strict=True))
        facts = list(zip(facts["title"], facts["sent_id"], strict=True))
    needed = {title for title, _ in facts}
    for title, sentences in context:
        yield Paragraph(title, " ".join(sentence.strip() for sentence in sentences), title in needed)
    missing = needed.difference(title for title, _ in context)
    if missing:
        raise ValueError(f"a supporting fact names the paragraph {sorted(missing)[0]!r}, which is missing")


def _paragraphs(record: Mapping[str, Any]) -> Iterator[Paragraph]:
    """The paragraphs in MuSiQue, each with a flag that says whether it is supporting."""
    for one in record["paragraphs"]:
        yield Paragraph(one["title"], one["paragraph_text"], one["is_supporting"])


def _build(
    path: Path,
    source: str | os.PathLike[str],
    name: str,
    licence: str,
    read_context: Callable[[Mapping[str, Any]], Iterator[Paragraph]],
    validation_fraction: float,
    seed: int,
) -> None:
    folder = pull_folder(source)
    files = {split: files_of_split(folder, name, split, patterns) for split, patterns in FILES.items()}
    checksums = [f"{file.name} {file_checksum(file)}" for some in files.values() for file in some]
    arguments = {"files": checksums, "validation_fraction": validation_fraction, "seed": seed}
    info = {"source": name, "licence": licence, "builder": f"{__name__} {amer.__version__}", "arguments": arguments}
    if is_built(path, info):
        return
    drops = DroppedRecords()
    documents: dict[str, Paragraph] = {}
    targets: Targets = {}
    asked = {
        split: [one for file in some for one in _read(file, read_context, documents, targets, drops)]
        for split, some in files.items()
    }
    validation, train = divide(unseen(asked["train"], asked["dev"], drops), validation_fraction, f"validation {seed}")
    chosen = {"train": train, "validation": validation, "test": asked["dev"]}
    _write_documents(path / "documents.parquet", documents)
    splits = {split: as_split(some, targets) for split, some in chosen.items()}
    needed = {document for clusters in targets.values() for (document,) in clusters}
    finish(path, splits, info | {"corpus": {"documents": len(documents), "targets": len(needed)}}, drops)


def _read(
    file: Path,
    read_context: Callable[[Mapping[str, Any]], Iterator[Paragraph]],
    documents: dict[str, Paragraph],
    targets: Targets,
    drops: DroppedRecords,
) -> Iterator[SourceQuestion]:
    """Read the questions of a file; add all their paragraphs to `documents`, and those they need to `targets`."""
    for place, record in read_records(file):
        try:
            query, query_id = record["question"], id_text(record["_id"] if "_id" in record else record["id"])
            context = {_document_id(one): one for one in read_context(record)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{place} is not in the published format ({error!r}): {str(record)[:80]}") from error
        documents.update(context)
        needed = [[document] for document, one in context.items() if one.is_supporting]
        if query_id in targets:
            raise ValueError(
                f"{place} has the id {query_id!r} of another question: ids are unique, change one of them"
            )
        if needed and record.get("answerable", True):
            targets[query_id] = needed
            yield SourceQuestion(Question(query_id, query, [], [query]), place)
        else:
            drops.add("question without an answer", place, query_id=query_id)


def _document_id(paragraph: Paragraph) -> str:
    """An id that depends only on title and text, so that it is the same in every context and file."""
    return hashlib.sha1(f"{paragraph.title}\n{paragraph.text}".encode()).hexdigest()[:20]


def _write_documents(file: Path, documents: Mapping[str, Paragraph]) -> None:
    columns = (list(documents), [one.title for one in documents.values()], [one.text for one in documents.values()])
    table = pa.table({name: pa.array(column, pa.string()) for name, column in zip(COLUMNS, columns, strict=True)})
    with atomic_write(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")
