"""QAMPARI: questions with five to eight answers; proof snippets serve as search texts for the documents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from amer.data.building import (
    DroppedRecords,
    SourceQuestion,
    against_paper,
    as_split,
    counted,
    described,
    divide,
    find_gold,
    finish,
    is_built,
    unseen,
    usable,
)
from amer.data.gold import Question, Retriever
from amer.text_lines import id_text, list_of_texts, read_objects

SOURCE = "QAMPARI"
SPLITS = ("train", "dev")
LEAST, MOST = 5, 8
PAPER = {"train and validation": 32_023, "test": 531, "targets a question": 6.09}
PAPER_READ = {"train": 61_911, "dev": 1_000}


def build_qampari(
    path: str | os.PathLike[str],
    documents: pa.Table,
    searches: Sequence[Retriever],
    source: str | os.PathLike[str],
    depth: int = 500,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> None:
    """Build QAMPARI as the paper does (A.3): `path/dataset/` and `path/dropped.jsonl`.

    The builder keeps a question if it has five to eight answers and a search for its proof snippets finds a document
    for each of them. The kept questions of the development split are the test set. Those of the training split are
    for training, without the questions of the test set; a tenth of them is the validation set (paper §6.1). All copies
    of a question are in the same split. A target is one answer, with its aliases; answers with the same aliases are
    merged.

    An interrupted build resumes when called again; a finished one is not changed.

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        documents: The corpus, from `open_documents`.
        searches: The searches that find candidates; the paper uses BM25 alone.
        source: The folder of the published `train_data.jsonl` and `dev_data.jsonl` (or `.jsonl.gz`).
        depth: Number of candidates of each snippet.
        validation_fraction: Share of the training questions for the validation set.
        seed: Seed of the choice of the validation questions.

    Raises:
        FileNotFoundError: A split is missing.
        FileExistsError: `path` holds a dataset of other arguments.
        OSError: A file is truncated.
        ValueError: A line is malformed (the message names file and line), or a split is empty.
    """
    path, files = Path(path), {split: _file(Path(source), split) for split in SPLITS}
    numbers = {"depth": depth, "validation_fraction": validation_fraction, "seed": seed}
    info = described(SOURCE, __name__, files.values(), documents, searches, **numbers)
    if is_built(path, info):
        return
    drops = DroppedRecords()
    read = {split: list(_read(file)) for split, file in files.items()}
    several = {split: usable(asked, drops, LEAST, MOST) for split, asked in read.items()}
    targets = find_gold([one for asked in several.values() for one in asked], searches, documents, path, depth, drops)
    mapped = {split: [one for one in asked if one.question.query_id in targets] for split, asked in several.items()}
    train = unseen(mapped["train"], mapped["dev"], drops)
    validation, train = divide(train, validation_fraction, f"validation {seed}")
    chosen = {"train": train, "validation": validation, "test": mapped["dev"]}
    splits = {name: as_split(asked, targets) for name, asked in chosen.items()}
    stages = {"read": read, f"{LEAST} to {MOST} answers": several, "mapped": mapped}
    paper = against_paper(PAPER, splits) | {"read": PAPER_READ}
    finish(path, splits, info | {"stages": counted(stages), "paper": paper}, drops)


def _file(folder: Path, split: str) -> Path:
    names = [f"{split}_data.jsonl", f"{split}_data.jsonl.gz"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} lacks QAMPARI's {split} split: looked for {' and '.join(names)}")


def _read(file: Path) -> Iterator[SourceQuestion]:
    for place, record in read_objects(file):
        try:
            answers = [[answer["answer_text"], *list_of_texts(answer["aliases"])] for answer in record["answer_list"]]
            proofs = [proof["proof_text"] for answer in record["answer_list"] for proof in answer["proof"]]
            question = Question(id_text(record["qid"]), record["question_text"], answers, list(dict.fromkeys(proofs)))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{place} is not in the published format ({error!r}): {str(record)[:80]}") from error
        yield SourceQuestion(question, place)
