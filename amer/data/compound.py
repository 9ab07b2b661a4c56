"""Compound questions: several questions about different things, joined into one, each part with its own target."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

import amer
from amer.checksums import file_checksum
from amer.data.building import DroppedRecords, finish, is_built
from amer.data.dataset import SPLITS, RetrievalDataset, load_dataset_dir
from amer.files import read_manifest
from amer.hub import pull_folder

TEMPLATES = Path(__file__).parent / "compound_templates.yaml"
HELD_OUT_TEMPLATES = Path(__file__).parent / "compound_templates_held_out.yaml"
"""For evaluation: none of them is in `TEMPLATES`."""

PART = "{}"
ASK = "{ask}"
ANY = "{any}"
MARKS = (",", ";", ".", "?", "!", ":", "-", "/", "|", "&", "+", ")", "...", "->")
MOST_WORDS = 4  # that stand for {any}
SHARES = (0.25, 0.25, 0.25, 0.25)
MOST_DRAWS = 100


class Templates(NamedTuple):
    """How questions are joined.

    Attributes:
        forms: by number of parts the templates: `{}` is a part, `{ask}` a part in the words of one of the asks, and
            `{any}` a mark or some words at random. Where they stand, only the parts themselves show where they end.
        asks: how a part may be asked for, with one `{}` each, such as "how do I {}".
    """

    forms: Mapping[int, Sequence[str]]
    asks: Sequence[str] = ()

    def without_any(self) -> Templates:
        """Only those that a person could have written: for evaluation."""
        forms = {count: [form for form in own if ANY not in form] for count, own in self.forms.items()}
        return self._replace(forms=forms)

    def draw(self, count: int, rng: np.random.Generator, words: Sequence[str]) -> str:
        """A template with `count` times `{}`; `words` are those that may stand for `{any}`.

        Raises:
            ValueError: there is none of so many parts.
        """
        if not self.forms.get(count):
            there = sorted(number for number, own in self.forms.items() if own)
            raise ValueError(f"there is no template of {count} parts, only of {there}: add one without {ANY}")
        form = self.forms[count][int(rng.integers(len(self.forms[count])))]
        while ASK in form:
            form = form.replace(ASK, self.asks[int(rng.integers(len(self.asks)))], 1)
        while ANY in form:
            form = form.replace(ANY, _anything(words, rng), 1)
        return form


class Parts(NamedTuple):
    """Questions of one target each, ready to be joined.

    Attributes:
        texts: the questions without the period or question mark at their end.
        inner: the same as they stand inside a sentence: "compute the mean", but "HTTP server".
        words: all that are in the texts, each once.
        targets: of each question the ids of the documents that answer it.
        answers: of each question its answer's aliases, if it has any.
    """

    texts: list[str]
    inner: list[str]
    words: list[str]
    targets: list[list[str]]
    answers: list[list[str] | None]


class Compound(NamedTuple):
    """A compound question.

    Attributes:
        rows: of `Parts`, in the order of the parts in the question.
        question: its text.
        spans: of each part, where it begins and ends in the text, in characters.
    """

    rows: list[int]
    question: str
    spans: list[list[int]]


def build_compound(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    templates: str | os.PathLike[str] = TEMPLATES,
    shares: Sequence[float] = SHARES,
    num_train: int = 20_000,
    num_validation: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> None:
    """Join the single-target questions of a dataset into compound questions: `path/dataset/`.

    The corpus is that of the source. Only questions of one split are joined with each other; those of several targets
    are left out. The parts of a question have no target document in common. The column `spans` says where each part
    stands in the question.

    A finished build is left as it is.

    Args:
        path: a folder that is new, empty, or left by an earlier call.
        source: a dataset directory, the folder of a builder that holds one as `dataset/`, or a name on the Hub.
        templates: a YAML file, see `load_templates`; `HELD_OUT_TEMPLATES` for an evaluation on other forms.
        shares: of the questions of 1, 2, 3 ... parts; they add up to 1.
        num_train: questions to draw; 0 to leave the split out, as are splits that the source does not have.
        num_validation: see `num_train`.
        num_test: see `num_train`.
        seed: the same seed and source give the same dataset.

    Raises:
        FileNotFoundError: there is no such dataset or template file.
        FileExistsError: `path` holds a dataset of other arguments.
        ValueError: the source has too few questions of one target, the templates are malformed, or an argument is out
            of its range.
    """
    path, folder = Path(path), _dataset_folder(source)
    wanted = {"train": num_train, "validation": num_validation, "test": num_test}
    info = _described(
        folder, Path(templates), shares=list(shares), seed=seed, **{f"num_{k}": n for k, n in wanted.items()}
    )
    if is_built(path, info):
        return
    forms, source_splits = load_templates(templates), load_dataset_dir(folder)
    splits = {}
    for place, (name, number) in enumerate(wanted.items()):
        if number and name in source_splits:
            rng = np.random.default_rng([seed, place])
            own = forms if name == "train" else forms.without_any()
            splits[name] = draw_dataset(prepare_parts(source_splits[name]), own, rng, number, shares)
    finish(path, splits, info, DroppedRecords())
    for text in folder.glob("LICENSE*"):
        shutil.copyfile(text, path / "dataset" / text.name)


def load_templates(file: str | os.PathLike[str] = TEMPLATES) -> Templates:
    """Read templates: a YAML file that maps numbers of parts to lists of texts with `{}` or `{ask}` for each part.

    A list `asks` of texts with one `{}` says what may stand for `{ask}`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is malformed, or a template has another number of parts than it stands under.
    """
    try:
        read = yaml.safe_load(Path(file).read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not YAML ({error})") from error
    if not isinstance(read, dict) or not all(isinstance(texts, list) and texts for texts in read.values()):
        raise ValueError(f"{file} must map each number of parts to a list of templates")
    asks = read.pop("asks", [])
    for parts, texts in [(1, asks), *read.items()]:
        for text in texts:
            if not isinstance(parts, int) or not isinstance(text, str) or _slots(text) != parts or parts < 1:
                raise ValueError(f"{file}: the template {text!r} under {parts!r} must be a text with {PART} so often")
            if (ASK in text and not asks) or (text in asks and (ASK in text or ANY in text)):
                raise ValueError(f"{file}: {text!r}: {ASK} needs a list of asks, which hold neither {ASK} nor {ANY}")
    return Templates(read, asks)


def _slots(template: str) -> int:
    """How many parts the template has."""
    return template.count(PART) + template.count(ASK)


def prepare_parts(split: RetrievalDataset) -> Parts:
    """The questions of a split that have one target, ready to be joined.

    Raises:
        ValueError: its queries are vectors only.
    """
    if split.queries is None:
        raise ValueError("the queries of this dataset are vectors: only texts can be joined")
    rows = [row for row, targets in enumerate(split.targets) if len(targets) == 1]
    queries = [split.queries[row] for row in rows]
    # Also of a question that stays alone: the mark at its end would tell the number of parts.
    texts = [_unclosed(query) for query in queries]
    names = _proper_names(texts)
    return Parts(
        texts=texts,
        inner=[_inside_sentence(text, names) for text in texts],
        words=sorted({word for text in texts for word in re.findall(r"[^\W\d_]+", text)}),
        targets=[split.targets[row][0] for row in rows],
        answers=[split.answers[row][0] if split.answers[row] else None for row in rows],
    )


def draw_compound(parts: Parts, templates: Templates, rng: np.random.Generator, count: int) -> Compound:
    """One compound question of `count` parts, which have no target document in common.

    Raises:
        ValueError: there is no template of so many parts, or too few questions of different targets.
    """
    template = templates.draw(count, rng, parts.words)
    for _ in range(MOST_DRAWS if count <= len(parts.texts) else 0):
        rows = rng.choice(len(parts.texts), size=count, replace=False).tolist()
        documents = [document for row in rows for document in {*parts.targets[row]}]
        if len({*documents}) == len(documents):
            return Compound(rows, *_fill(template, [(parts.texts[row], parts.inner[row]) for row in rows]))
    raise ValueError(
        f"a question of {count} parts needs {count} questions that have one target each, and different ones; of "
        f"{len(parts.texts)} questions with one target no {count} were found: give a larger dataset or fewer parts"
    )


def draw_dataset(
    parts: Parts,
    templates: Templates,
    rng: np.random.Generator,
    count: int,
    shares: Sequence[float] = SHARES,
) -> RetrievalDataset:
    """Draw a split of compound questions, anew in each epoch with `np.random.default_rng([seed, epoch])`.

    No two questions have the same parts, as long as there are others to draw.

    Args:
        parts: what to join (`prepare_parts`).
        templates: how (`load_templates`).
        rng: in equal states it gives equal questions.
        count: questions to draw.
        shares: of the questions of 1, 2, 3 ... parts; they add up to 1.

    Raises:
        ValueError: the shares are none, or as `draw_compound`.
    """
    numbers = rng.permutation(np.repeat(np.arange(1, len(shares) + 1), _counts(shares, count)))
    seen: set[frozenset[int]] = set()
    drawn = []
    for number in numbers.tolist():
        for _ in range(MOST_DRAWS):
            compound = draw_compound(parts, templates, rng, number)
            if frozenset(compound.rows) not in seen:
                break
        seen.add(frozenset(compound.rows))
        drawn.append(compound)
    return RetrievalDataset(
        query_ids=[f"compound-{number}" for number in range(len(drawn))],
        queries=[compound.question for compound in drawn],
        targets=[[parts.targets[row] for row in compound.rows] for compound in drawn],
        answers=[_answers(parts, compound.rows) for compound in drawn],
        spans=[compound.spans for compound in drawn],
    )


def _anything(words: Sequence[str], rng: np.random.Generator) -> str:
    """A mark, or some words."""
    if not words or rng.random() < 1 / 3:
        return f"{MARKS[int(rng.integers(len(MARKS)))]} "
    return f" {' '.join(words[row] for row in rng.integers(len(words), size=rng.integers(1, MOST_WORDS + 1)))} "


def _dataset_folder(source: str | os.PathLike[str]) -> Path:
    folder = pull_folder(source)
    return folder if (folder / "dataset.json").is_file() else folder / "dataset"


def _described(folder: Path, templates: Path, **arguments: Any) -> dict[str, Any]:
    """What `dataset.json` says of how the dataset was built."""
    origin = read_manifest(folder / "dataset.json", dict)
    files = [folder / f"{name}.parquet" for name in SPLITS if (folder / f"{name}.parquet").is_file()]
    given = {
        "files": [f"{file.name} {file_checksum(file)}" for file in files],
        "templates": f"{templates.name} {file_checksum(templates)}",
    }
    kept = {key: origin[key] for key in ("source", "licence", "corpus") if key in origin}
    return {**kept, "builder": f"{__name__} {amer.__version__}", "arguments": given | arguments}


def _counts(shares: Sequence[float], count: int) -> list[int]:
    """How many questions have 1, 2, 3 ... parts; they add up to `count`."""
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares are {list(shares)}: of the questions of 1, 2, 3 ... parts, they must add up to 1")
    ends = np.rint(np.cumsum([0.0, *shares]) * count).astype(int)
    return [int(number) for number in np.diff(ends)]


def _answers(parts: Parts, rows: Iterable[int]) -> list[list[str]]:
    """The aliases of every part's answer; nothing where a part has none."""
    answers = [parts.answers[row] for row in rows]
    return [] if None in answers else [aliases for aliases in answers if aliases is not None]


def _unclosed(text: str) -> str:
    """A text without the mark at its end; "etc." and "..." stay, and a text of marks alone."""
    text = text.strip()
    return text if text.endswith(("etc.", "..")) else text.rstrip(".?!").rstrip() or text


def _proper_names(texts: Iterable[str]) -> set[str]:
    """Words that, not at the beginning of a text, are capitalised more often than not."""
    counts = Counter(word for text in texts for word in re.findall(r"\w+", text.partition(" ")[2]))
    return {word for word in counts if word[0].isupper() and counts[word] > counts[word.lower()]}


def _inside_sentence(text: str, names: set[str]) -> str:
    """The text with its first letter in lower case, unless its first word is a name, a code or an abbreviation."""
    first = re.split(r"\W", text, maxsplit=1)[0]
    ordinary = first[:1].isupper() and first[1:].islower() and first not in names
    return text[0].lower() + text[1:] if ordinary or text.startswith("A ") else text


def _fill(template: str, parts: Sequence[tuple[str, str]]) -> tuple[str, list[list[int]]]:
    """The question and each part's span; a part at the beginning of a sentence keeps its capital letter."""
    first, *others = template.split(PART)
    question = first
    spans: list[list[int]] = []
    for (text, inner), after in zip(parts, others, strict=True):
        begins = not question or question.rstrip().endswith((".", "?", "!"))
        text = text if begins else inner
        spans.append([len(question), len(question) + len(text)])
        question += text + after
    return question, spans
