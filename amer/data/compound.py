"""Compound questions: several questions about different things joined into one; each part has its own target."""

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
"""Templates for evaluation; none of them is in `TEMPLATES`."""

PART = "{}"
ASK = "{ask}"
ANY = "{any}"
MARKS = (",", ";", ".", "?", "!", ":", "-", "/", "|", "&", "+", ")", "...", "->")
MOST_WORDS = 4  # in place of {any}
SHARES = (0.25, 0.25, 0.25, 0.25)
MOST_DRAWS = 100


class Templates(NamedTuple):
    """The templates that join questions.

    Attributes:
        forms: Number of parts -> templates. In a template, `{}` is a part, `{ask}` is a part worded with one of
            `asks`, and `{any}` is a random mark or some random words. Since `{any}` can be anything, a model cannot
            find the ends of the parts by the text between them.
        asks: Ways to ask for a part, with one `{}` each, such as "how do I {}".
    """

    forms: Mapping[int, Sequence[str]]
    asks: Sequence[str] = ()

    def without_any(self) -> Templates:
        """Keep the templates that a person could have written, those without `{any}`, for evaluation."""
        forms = {count: [form for form in own if ANY not in form] for count, own in self.forms.items()}
        return self._replace(forms=forms)

    def draw(self, count: int, rng: np.random.Generator, words: Sequence[str]) -> str:
        """Draw a template with `count` times `{}`; `words` may replace `{any}`.

        Raises:
            ValueError: There is no template of `count` parts.
        """
        if not self.forms.get(count):
            there = sorted(number for number, own in self.forms.items() if own)
            raise ValueError(f"there is no template of {count} parts, only of {there}: add a template without {ANY}")
        form = self.forms[count][int(rng.integers(len(self.forms[count])))]
        while ASK in form:
            form = form.replace(ASK, self.asks[int(rng.integers(len(self.asks)))], 1)
        while ANY in form:
            form = form.replace(ANY, _anything(words, rng), 1)
        return form


class Parts(NamedTuple):
    """Questions with one target each, ready to be joined.

    Attributes:
        texts: The questions without the period or question mark at their end.
        inner: The questions as written inside a sentence: "compute the mean", but "HTTP server".
        words: The distinct words of the texts.
        targets: For each question, the ids of the documents that answer it.
        answers: For each question, the aliases of its answer, or None.
    """

    texts: list[str]
    inner: list[str]
    words: list[str]
    targets: list[list[str]]
    answers: list[list[str] | None]


class Compound(NamedTuple):
    """A compound question.

    Attributes:
        rows: The rows of `Parts`, in the order of the parts in the question.
        question: Text of the question.
        spans: `[start, end]` of each part in the text, in characters.
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

    The corpus is the corpus of the source. Questions are joined only within a split; questions with several targets
    are left out. The parts of a question share no target document. The column `spans` holds the position of each part
    in the question.

    A finished build is not changed.

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        source: A dataset directory, the output folder of a builder (with `dataset/` in it), or a name on the Hub.
        templates: A YAML file, see `load_templates`; `HELD_OUT_TEMPLATES` to evaluate on other forms.
        shares: The shares of questions with 1, 2, 3 ... parts; they must add up to 1.
        num_train: Number of questions to draw; 0 leaves the split out. A split that the source lacks is left out too.
        num_validation: See `num_train`.
        num_test: See `num_train`.
        seed: The same seed and source give the same dataset.

    Raises:
        FileNotFoundError: There is no such dataset or template file.
        FileExistsError: `path` holds a dataset of other arguments.
        ValueError: The source has too few questions with one target, the templates are malformed, or an argument is
            out of range.
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

    An optional list `asks` holds the replacements of `{ask}`, each a text with one `{}`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is malformed, or a template does not have the number of parts that it is listed under.
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
                raise ValueError(f"{file}: the template {text!r} under {parts!r} must have that number of {PART}")
            if (ASK in text and not asks) or (text in asks and (ASK in text or ANY in text)):
                raise ValueError(f"{file}: {text!r}: {ASK} needs a list `asks` of texts without {ASK} and {ANY}")
    return Templates(read, asks)


def _slots(template: str) -> int:
    """The number of parts of the template."""
    return template.count(PART) + template.count(ASK)


def prepare_parts(split: RetrievalDataset) -> Parts:
    """Prepare the questions with one target of a split for joining.

    Raises:
        ValueError: The queries of the split are vectors only.
    """
    if split.queries is None:
        raise ValueError("the queries of this dataset are vectors: only texts can be joined; give a dataset of texts")
    rows = [row for row, targets in enumerate(split.targets) if len(targets) == 1]
    queries = [split.queries[row] for row in rows]
    # A question with one part loses its mark too: otherwise the mark would reveal the number of parts.
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
    """Draw one compound question of `count` parts that share no target document.

    Raises:
        ValueError: There is no template of `count` parts, or there are too few questions with different targets.
    """
    template = templates.draw(count, rng, parts.words)
    for _ in range(MOST_DRAWS if count <= len(parts.texts) else 0):
        rows = rng.choice(len(parts.texts), size=count, replace=False).tolist()
        documents = [document for row in rows for document in {*parts.targets[row]}]
        if len({*documents}) == len(documents):
            return Compound(rows, *_fill(template, [(parts.texts[row], parts.inner[row]) for row in rows]))
    raise ValueError(
        f"a question of {count} parts needs {count} questions with one target each and no target in common: "
        f"{len(parts.texts)} questions with one target gave no such {count}; give a larger dataset or fewer parts"
    )


def draw_dataset(
    parts: Parts,
    templates: Templates,
    rng: np.random.Generator,
    count: int,
    shares: Sequence[float] = SHARES,
) -> RetrievalDataset:
    """Draw a split of compound questions; for a new one in each epoch, pass `np.random.default_rng([seed, epoch])`.

    No two questions have the same parts, as long as there are other parts to draw.

    Args:
        parts: The questions to join, from `prepare_parts`.
        templates: The templates, from `load_templates`.
        rng: Random number generator; equal states give equal questions.
        count: Number of questions to draw.
        shares: The shares of questions with 1, 2, 3 ... parts; they must add up to 1.

    Raises:
        ValueError: The shares are invalid, or `draw_compound` raises it.
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
    """Draw a mark or some words."""
    if not words or rng.random() < 1 / 3:
        return f"{MARKS[int(rng.integers(len(MARKS)))]} "
    return f" {' '.join(words[row] for row in rng.integers(len(words), size=rng.integers(1, MOST_WORDS + 1)))} "


def _dataset_folder(source: str | os.PathLike[str]) -> Path:
    folder = pull_folder(source)
    return folder if (folder / "dataset.json").is_file() else folder / "dataset"


def _described(folder: Path, templates: Path, **arguments: Any) -> dict[str, Any]:
    """The description of the build for `dataset.json`."""
    origin = read_manifest(folder / "dataset.json", dict)
    files = [folder / f"{name}.parquet" for name in SPLITS if (folder / f"{name}.parquet").is_file()]
    given = {
        "files": [f"{file.name} {file_checksum(file)}" for file in files],
        "templates": f"{templates.name} {file_checksum(templates)}",
    }
    kept = {key: origin[key] for key in ("source", "licence", "corpus") if key in origin}
    return {**kept, "builder": f"{__name__} {amer.__version__}", "arguments": given | arguments}


def _counts(shares: Sequence[float], count: int) -> list[int]:
    """The numbers of questions with 1, 2, 3 ... parts; they add up to `count`."""
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares are {list(shares)}: the shares of questions with 1, 2, 3 ... parts must add up to 1")
    ends = np.rint(np.cumsum([0.0, *shares]) * count).astype(int)
    return [int(number) for number in np.diff(ends)]


def _answers(parts: Parts, rows: Iterable[int]) -> list[list[str]]:
    """The aliases of every part's answer; an empty list if a part has none."""
    answers = [parts.answers[row] for row in rows]
    return [] if None in answers else [aliases for aliases in answers if aliases is not None]


def _unclosed(text: str) -> str:
    """Remove the mark at the end of a text; keep "etc.", "..." and a text of marks only."""
    text = text.strip()
    return text if text.endswith(("etc.", "..")) else text.rstrip(".?!").rstrip() or text


def _proper_names(texts: Iterable[str]) -> set[str]:
    """Words that are capitalised more often than not, except at the beginning of a text."""
    counts = Counter(word for text in texts for word in re.findall(r"\w+", text.partition(" ")[2]))
    return {word for word in counts if word[0].isupper() and counts[word] > counts[word.lower()]}


def _inside_sentence(text: str, names: set[str]) -> str:
    """Write the first letter in lower case, unless the first word is a name, code or abbreviation."""
    first = re.split(r"\W", text, maxsplit=1)[0]
    ordinary = first[:1].isupper() and first[1:].islower() and first not in names
    return text[0].lower() + text[1:] if ordinary or text.startswith("A ") else text


def _fill(template: str, parts: Sequence[tuple[str, str]]) -> tuple[str, list[list[int]]]:
    """Fill a template: the question and each part's span; a part that begins a sentence keeps its capital letter."""
    first, *others = template.split(PART)
    question = first
    spans: list[list[int]] = []
    for (text, inner), after in zip(parts, others, strict=True):
        begins = not question or question.rstrip().endswith((".", "?", "!"))
        text = text if begins else inner
        spans.append([len(question), len(question) + len(text)])
        question += text + after
    return question, spans
