"""Builder for your own data: questions with the documents that answer them, or with answers only."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from amer.corpus.table import COLUMNS, with_texts
from amer.data.building import (
    DroppedRecords,
    SourceQuestion,
    as_split,
    described,
    divide,
    find_gold,
    finish,
    is_built,
    read_records,
    usable,
)
from amer.data.dataset import SPLITS
from amer.data.gold import Question, Retriever
from amer.files import atomic_write, parquet_batches, parse_json
from amer.hub import load_datasets
from amer.text_lines import Place, checked_ending, id_text, parse_object, read_lines

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz", ".parquet")
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")  # the Hub keeps them beside the data
SAVED = ("dataset_dict.json", "state.json")  # written by `save_to_disk`
LISTS = ("positives", "answers")
PIECE = re.compile(r"-\d{5}-of-(\d{5})$")  # how the Hub numbers the files of a split
WHOLE = "query"  # the name of a source without splits
DOCUMENTS = pa.schema([(name, pa.string()) for name in COLUMNS])
MOST_PROBLEMS = 20
MOST_CHARACTERS = 2**31 - 1  # limit for a CSV cell, which may hold a whole document


class Problems:
    """Collects what is wrong with the records, to report up to twenty problems at once."""

    def __init__(self) -> None:
        """Start without problems."""
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Add a problem; raise a ValueError at the twentieth."""
        self._texts.append(text)
        if len(self._texts) == MOST_PROBLEMS:
            self._texts.append("... the first twenty")
            self.check()

    def check(self) -> None:
        """Raise a ValueError with all problems, if there are any."""
        if self._texts:
            raise ValueError("\n".join(self._texts))


class Row(NamedTuple):
    """A question as it was given.

    Attributes:
        asked: The question, its answers (an empty list if none) and its place.
        positives: For each target, the ids or texts of its documents; None if the documents must be found.
    """

    asked: SourceQuestion
    positives: list[list[str]] | None


def build_custom(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    documents: pa.Table | None = None,
    searches: Sequence[Retriever] = (),
    depth: int = 500,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> None:
    """Build a dataset from your own records: `path/dataset/` and `path/dropped.jsonl`.

    If the positives are texts, it also writes them as the corpus `path/documents.parquet`. A record has the fields

    - `query`: the question.
    - `positives`: its documents, each by its id (a text or a whole number) or as its whole text. In a list, each
      document is one target. In a list of lists, each inner list is one target, and any of its documents is enough.
      Equal targets are merged.
    - `answers`: a list of strings, or of lists of aliases, one per target. With both fields, give as many `answers`
      as `positives`. Without `positives`, the gold documents are found as in the paper (A.3); a question is dropped
      if no document contains one of its answers.
    - `query_id`: unique. Default: the split and the line.

    In CSV files, write the lists as JSON in a cell. Every record is checked before the build starts.

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        source: One of three.
            A file, which is divided into splits: `.jsonl`, `.json` (a list), `.csv` or `.parquet`; `.jsonl.gz` and
            `.csv.gz` too.
            A folder with files called `train`, `validation` or `test`, also in pieces as on the Hub
            (`data/train-00000-of-00002.parquet`).
            A data set of the `datasets` library with such splits: its name on the Hub, or the folder it was saved to.
        documents: The corpus; None if the positives are texts.
        searches: The searches that find candidates for `answers`.
        depth: Number of candidates of each search.
        test_fraction: The share of a single file that becomes the test set. Copies of a question stay together.
        validation_fraction: The share of the rest that becomes the validation set.
        seed: Seed of the division.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: `path` holds a dataset of other arguments.
        OSError: A file is truncated.
        ValueError: Records are invalid, or a split is empty. The message lists the first twenty bad records with file
            and line (for a Parquet file or a data set: the row, from 1).
    """
    path, parts = Path(path), _parts(source)
    documents = None if documents is None else with_texts(documents, "documents")
    numbers = {"depth": depth, "test_fraction": test_fraction, "validation_fraction": validation_fraction}
    info = described(Path(source).name, __name__, _files(parts), documents, searches, seed=seed, **numbers)
    if is_built(path, info):
        return
    rows = _checked_rows(parts)
    given = [row for part in rows.values() for row in part]
    ids = _documents_of_texts(given, path) if documents is None else _documents_of(given, documents)
    drops = DroppedRecords()
    with_positives = [_merged(row, ids, drops) for row in given if row.positives]
    asked = [one for one, _ in with_positives]
    targets = {one.question.query_id: own for one, own in with_positives}
    mapped = usable([row.asked for row in given if not row.positives], drops)
    if mapped:
        if documents is None or not searches:
            raise ValueError(
                f"{mapped[0].place} has answers only, so its documents must be searched: give a corpus and a search"
            )
        targets |= find_gold(mapped, searches, documents, path, depth, drops)
    kept = {one.question.query_id: one for one in asked + mapped if one.question.query_id in targets}
    names = {name: [row.asked.question.query_id for row in part] for name, part in rows.items()}
    chosen = {name: [kept[one] for one in part if one in kept] for name, part in names.items()}
    if WHOLE in chosen:
        chosen = _divided(chosen[WHOLE], test_fraction, validation_fraction, seed)
    finish(path, {name: as_split(part, targets) for name, part in chosen.items()}, info, drops)


def _merged(row: Row, ids: dict[str, list[str]], drops: DroppedRecords) -> tuple[SourceQuestion, list[list[str]]]:
    """A question with its targets; targets with the same documents and the same answer are merged."""
    question, place = row.asked
    distinct: dict[tuple[frozenset[str], frozenset[str]], tuple[list[str], list[str]]] = {}
    for number, cluster in enumerate(row.positives or ()):
        target = list(dict.fromkeys(name for text in cluster for name in ids[text]))
        aliases = question.answers[number] if question.answers else []
        if (frozenset(target), frozenset(aliases)) in distinct:
            drops.add("positive with the documents of another, merged", place, query_id=question.query_id)
        distinct.setdefault((frozenset(target), frozenset(aliases)), (target, aliases))
    answers = [aliases for _, aliases in distinct.values()] if question.answers else []
    return SourceQuestion(question._replace(answers=answers), place), [target for target, _ in distinct.values()]


def _divided(
    asked: Sequence[SourceQuestion], test: float, validation: float, seed: int
) -> dict[str, list[SourceQuestion]]:
    """Divide one file into splits; a fraction of 0 gives no split."""
    tested, rest = divide(asked, test, f"test {seed}")
    validated, train = divide(rest, validation, f"validation {seed}")
    fractions = {"train": 1, "validation": validation, "test": test}
    parts = {"train": train, "validation": validated, "test": tested}
    return {name: parts[name] for name, fraction in fractions.items() if fraction}


def _parts(source: str | os.PathLike[str]) -> dict[str, Any]:
    """The splits of a source, each as files or a `datasets.Dataset`; the key is `WHOLE` if it is not yet divided."""
    path = Path(source).expanduser()
    if path.is_file():
        checked_ending(path, ENDINGS)
        return {WHOLE: [path]}
    if path.is_dir() and not any((path / name).is_file() for name in SAVED):
        parts: dict[str, Any] = _files_of_splits(path)
    else:
        if not path.is_dir() and (str(source).count("/") != 1 or str(source).startswith((".", "/", "~"))):
            raise FileNotFoundError(
                f"{source} is no file, no folder and no name on the Hub: give one of them; a name is org/name"
            )
        loaded = load_datasets(source)
        parts = dict(loaded) if isinstance(loaded, dict) else {WHOLE: loaded}
    unknown = sorted({*parts} - {*SPLITS, WHOLE})
    if unknown or not parts:
        raise ValueError(
            f"{source} has the splits {sorted(parts)}: give files named after {', '.join(SPLITS)} (at least one; "
            f"{', '.join(ENDINGS)}), or a data set with these splits"
        )
    return parts


def _files_of_splits(folder: Path) -> dict[str, list[Path]]:
    """The files of each split: `train.jsonl`, or `data/train-00000-of-00002.parquet` and so on, as on the Hub."""
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.name.lower().endswith(ENDINGS) and file.name not in DESCRIPTIONS and not file.name.startswith(".")
    ]
    if not files and (folder / "data").is_dir():
        return _files_of_splits(folder / "data")
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(PIECE.sub("", _stem(file)), []).append(file)
    for name, own in parts.items():
        if not _is_whole(own):
            raise ValueError(
                f"{folder} must hold each split as one file or as all pieces of one, but {name!r} is in "
                f"{', '.join(file.name for file in own)}: remove or add files"
            )
    return parts


def _stem(file: Path) -> str:
    """The name of a file without its endings, such as `.jsonl.gz`."""
    return file.name.partition(".")[0]


def _is_whole(files: Sequence[Path]) -> bool:
    """Whether the files of a split are one file, or all pieces of one, each once."""
    pieces = [PIECE.search(_stem(file)) for file in files]
    totals = {int(piece[1]) if piece else 1 for piece in pieces}
    numbers = {piece[0] if piece else "" for piece in pieces}
    return totals == {len(files)} and len(numbers) == len(files)


def _files(parts: dict[str, Any]) -> list[Path]:
    """All files of the splits."""
    files: list[Path] = []
    for part in parts.values():
        files += part if isinstance(part, list) else [Path(file["filename"]) for file in part.cache_files]
    return files


def _checked_rows(parts: dict[str, Any]) -> dict[str, list[Row]]:
    """Read and check every record; a ValueError lists the first twenty problems."""
    problems = Problems()
    first: dict[str, Place] = {}
    rows: dict[str, list[Row]] = {}
    for name, part in parts.items():
        rows[name] = []
        for number, place, record in _numbered(_records(name, part, problems)):
            row = _row(f"{name}-{number}", place, record, problems)
            if row is not None:
                query_id = row.asked.question.query_id
                if first.setdefault(query_id, place) != place:
                    problems.add(f"{place} has the query_id {query_id!r} of {first[query_id]}: ids must be unique")
                rows[name].append(row)
    problems.check()
    if empty := [name for name, some in rows.items() if not some]:
        files = [str(file) for name in empty for file in (parts[name] if isinstance(parts[name], list) else [name])]
        raise ValueError(f"{', '.join(files)} holds no record: add questions or remove the file")
    return rows


def _numbered(records: Iterator[tuple[Place, dict[str, Any]]]) -> Iterator[tuple[int, Place, dict[str, Any]]]:
    """Number the records of a split; the count continues from one piece to the next."""
    before, last = 0, None
    for place, record in records:
        if last is not None and place.file != last.file:
            before += last.number
        last = place
        yield before + place.number, place, record


def _records(name: str, part: Any, problems: Problems) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Read the records of a split; a record that cannot be read becomes a problem."""
    if not isinstance(part, list):
        yield from ((Place(Path(name), "row", number), record) for number, record in enumerate(part, start=1))
        return
    for file in part:
        ending = checked_ending(file, ENDINGS)
        if ending == ".parquet":
            yield from _parquet_records(file)
        elif ending == ".json":
            yield from read_records(file)
        elif ending.startswith(".csv"):
            yield from _csv_records(file, problems)
        else:
            yield from _json_lines(file, problems)


def _json_lines(file: Path, problems: Problems) -> Iterator[tuple[Place, dict[str, Any]]]:
    for place, line in read_lines(file):
        if not line.strip():
            continue
        try:
            yield place, parse_object(line, place)
        except ValueError as error:
            problems.add(str(error))


def _parquet_records(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    records = (record for batch in parquet_batches(file) for record in batch.to_pylist())
    yield from ((Place(file, "row", number), record) for number, record in enumerate(records, start=1))


def _csv_records(file: Path, problems: Problems) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Read a CSV file with a header; lists are JSON, and an empty cell counts as missing."""
    csv.field_size_limit(MOST_CHARACTERS)
    reader = csv.reader((line for _, line in read_lines(file)), strict=True)
    header: list[str] = []
    place = Place(file, "line", 1)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                pass
            elif not header:
                header = _checked_header(cells, file)
            elif len(cells) != len(header):
                problems.add(f"{place} has {len(cells)} cells, the header has {len(header)}")
            else:
                yield place, _parsed_cells(dict(zip(header, cells, strict=True)), place, problems)
            place = Place(file, "line", reader.line_num + 1)
    except csv.Error as error:
        problems.add(f"{place} is not valid CSV ({error})")


def _checked_header(cells: list[str], file: Path) -> list[str]:
    """The column names; a ValueError if another character than the comma seems to separate them."""
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(cells) == 1 and delimiter in cells[0]:
            raise ValueError(f"{file} seems to be separated by {name}: save it with commas")
    return cells


def _parsed_cells(record: dict[str, Any], place: Place, problems: Problems) -> dict[str, Any]:
    for name in LISTS:
        text = record.pop(name, "")
        try:
            if text:
                record[name] = parse_json(text)
        except ValueError as error:
            problems.add(f"{place}: {name} is not JSON ({error}): {text[:60]!r}")
    return record


def _row(usual_id: str, place: Place, record: dict[str, Any], problems: Problems) -> Row | None:
    """Turn a record into a question; an invalid record is noted and gives None."""
    wrong: list[str] = []
    query, query_id = record.get("query"), record.get("query_id")
    if not isinstance(query, str) or not query.strip():
        wrong.append(f"query is {query!r}: it must be a text")
    if query_id in (None, ""):  # an empty cell
        query_id = usual_id
    try:
        query_id = id_text(query_id)
    except TypeError:
        wrong.append(f"query_id is {query_id!r}: it must be a text or a whole number")
    positives, answers = (_clusters(record, column, wrong) for column in LISTS)
    if positives is None and answers is None:
        wrong.append(f"give positives or answers; the record has only {', '.join(record)}")
    if positives and answers and len(positives) != len(answers):
        wrong.append(f"{len(positives)} positives but {len(answers)} answers: give one answer per target, or none")
    for text in wrong:
        problems.add(f"{place}: {text}")
    if wrong or not isinstance(query, str):
        return None
    return Row(SourceQuestion(Question(query_id, query, answers or [], [query]), place), positives)


def _clusters(record: dict[str, Any], column: str, wrong: list[str]) -> list[list[str]] | None:
    """A list of lists of texts, from one or from a list of texts; None if the column is missing."""
    value = record.get(column)
    if value is None:
        return None
    lists = [one if isinstance(one, list) else [one] for one in value] if isinstance(value, list) else []
    if column == "positives":
        lists = [[str(one) if type(one) is int else one for one in aliases] for aliases in lists]
    if not lists or not all(lists) or not all(isinstance(text, str) and text.strip() for one in lists for text in one):
        shown = json.dumps(value, ensure_ascii=False, default=str)[:80]
        wrong.append(f"{column} is {shown}: it must be a list of non-empty texts, or of non-empty lists of them")
    return lists


def _documents_of_texts(rows: Sequence[Row], path: Path) -> dict[str, list[str]]:
    """Write the positives, which are texts, as the corpus; return their ids."""
    texts = dict.fromkeys(text for row in rows for cluster in row.positives or () for text in cluster)
    ids = {text: [f"d{number}"] for number, text in enumerate(texts)}
    names = [name for (name,) in ids.values()]
    documents = pa.table({"id": names, "title": [""] * len(ids), "text": list(ids)}, DOCUMENTS)
    with atomic_write(path / "documents.parquet") as temporary:
        pq.write_table(documents, temporary, compression="zstd")
    return ids


def _documents_of(rows: Sequence[Row], documents: pa.Table) -> dict[str, list[str]]:
    """Find the documents of the positives, by id or by whole text, in one pass over each column."""
    wanted = {text: row.asked.place for row in rows for cluster in row.positives or () for text in cluster}
    found: dict[str, list[str]] = {}
    for column in ("id", "text"):
        missing = pa.array([text for text in wanted if text not in found], documents.schema.field(column).type)
        for batch in documents.to_batches() if len(missing) else ():
            matching = batch.filter(pc.is_in(batch.column(column), value_set=missing))
            for text, name in zip(matching.column(column).to_pylist(), matching.column("id").to_pylist(), strict=True):
                found.setdefault(text, []).append(name)
    problems = Problems()
    for text in [text for text in wanted if text not in found]:
        problems.add(f"{wanted[text]}: {text[:60]!r} is neither the id nor the whole text of a document of the corpus")
    problems.check()
    return found
