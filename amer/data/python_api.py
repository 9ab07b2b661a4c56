"""The API reference of installed Python packages: the question is a summary line, the target the rest of the entry."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

import amer
from amer.corpus.table import COLUMNS
from amer.data import docstrings
from amer.data.building import WORK, DroppedRecords, finish, is_built, twentieth
from amer.data.dataset import SPLITS, RetrievalDataset
from amer.data.docstrings import STANDARD_LIBRARY
from amer.files import atomic_write, read_json, write_json
from amer.text_lines import Place

DEFAULT_PACKAGES = (
    STANDARD_LIBRARY, "numpy", "scipy", "pandas", "sklearn", "matplotlib", "torch", "transformers", "datasets",
    "huggingface_hub", "accelerate", "peft", "faiss",
)  # fmt: skip
NO_PROXY = "http://127.0.0.1:9"
NO_NETWORK = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HTTP_PROXY": NO_PROXY, "HTTPS_PROXY": NO_PROXY,
    "http_proxy": NO_PROXY, "https_proxy": NO_PROXY,
}  # fmt: skip
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""Environment variables that the packages' code gets; it must not see others, such as keys and passwords."""

MIN_SUMMARY, MAX_SUMMARY = 3, 30
MIN_TEXT = 8
MAX_SIGNATURE = 300
"""Limits on words in a summary line, words in the rest of the docstring, and characters in a signature."""

PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")
ROLE = re.compile(r":[a-z:]+:`[~!]?([^`<]+?)(?:\s*<[^`]*>)?`")
NO_SUMMARY = re.compile(
    r"\b(?:Args|Arguments|Parameters|Returns|Raises|Examples?|Notes?):|:$| [-*] |>>>|[][{}\\=]|\.\.\."
)
EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}([A-Za-z][\w ]*)\*{1,2}(?![\w*])")
LINK = re.compile(r"\[?`+~?([^`]+)`+\]?_{0,2}(?:\([^)\s]*\))?")


class Entry(NamedTuple):
    """One function, class or method of a package.

    Attributes:
        name: Qualified, e.g. "torch.nn.Linear".
        summary: The first sentence of its docstring, without markup.
        text: Its signature and the rest of its docstring.
        place: The place where it was read.
    """

    name: str
    summary: str
    text: str
    place: Place


def build_python_api(
    path: str | os.PathLike[str],
    packages: Sequence[str] | None = None,
    time_limit: float = 300.0,
    num_workers: int | None = None,
) -> None:
    """Build the reference of installed packages: `path/dataset/`, `path/documents.parquet`, `path/dropped.jsonl`.

    A document is a function, class or method. Its title is the qualified name; its text is the signature and the
    docstring without the summary line. The summary line is the question. Entries that share a summary line or a text
    are dropped, as documents and as questions. The SHA-1 of the qualified name decides the split: of twenty parts,
    one is reserved (documents without a question), two are the test set, one is the validation set, and the rest is
    the training set. A split without questions is left out.

    Each package is imported in a separate process, without network and in an empty folder; only the imports run.
    `dropped.jsonl` lists the modules that raised or printed, and the packages that ran out of time.

    An interrupted build resumes when called again; a finished one is not changed. The same packages give the same
    dataset, except for texts that a package makes from random numbers at each import (three in SciPy 1.17).

    Args:
        path: A folder that is new, empty, or left by an earlier call.
        packages: Names as in `import`, such as "sklearn"; "python" is the standard library. None: the standard library
            and the installed dependencies of this project.
        time_limit: Seconds per package; a package that takes longer is left out.
        num_workers: Packages to read at the same time; None for the number of CPU cores.

    Raises:
        FileExistsError: `path` holds a dataset of other packages or versions.
        ValueError: A package is not installed, or no question is left for training.
    """
    path, versions = Path(path), _versions(packages)
    info: dict[str, Any] = {
        "source": "docstrings of installed Python packages",
        "licence": "those of the packages",
        "builder": f"{__name__} {amer.__version__}",
        "arguments": {"python": platform.python_version(), "packages": versions},
    }
    if is_built(path, info):
        return
    files = {name: path / WORK / f"part-{name}-{number}.json" for name, number in versions.items()}
    with ThreadPoolExecutor(num_workers or os.cpu_count()) as pool:
        list(pool.map(lambda name: _read(name, files[name], time_limit), files))
    drops = DroppedRecords()
    entries = _distinct([entry for name, file in files.items() for entry in _entries(name, file, drops)], drops)
    _write_documents(path / "documents.parquet", entries)
    splits = _splits(entries)
    corpus = {"documents": len(entries), "targets": sum(map(len, splits.values()))}
    finish(path, splits, info | {"corpus": corpus}, drops)


def split_of(name: str) -> str:
    """The split of a qualified name: "train", "validation", "test" or "reserved" (its question is never used)."""
    return {0: "reserved", 1: "test", 2: "validation", 3: "test"}.get(twentieth(name), "train")


def _versions(packages: Sequence[str] | None) -> dict[str, str | None]:
    """The version of each package; None if no distribution names it."""
    if isinstance(packages, str):
        raise TypeError(f"packages is the string {packages!r}: give a list of names")
    names = list(dict.fromkeys(filter(_is_installed, DEFAULT_PACKAGES) if packages is None else packages))
    missing = [name for name in names if not _is_installed(name)]
    if missing or not names:
        raise ValueError(
            f"packages {missing} cannot be imported here: give one or more names as in `import`, without a dot "
            f"(sklearn, not scikit-learn), or {STANDARD_LIBRARY!r} for the standard library"
        )
    distributions = packages_distributions()
    versions: dict[str, str | None] = {}
    for name in names:
        if name in (STANDARD_LIBRARY, *sys.stdlib_module_names):
            versions[name] = platform.python_version()
        else:
            versions[name] = version(distributions[name][0]) if name in distributions else None
    return versions


def _is_installed(name: str) -> bool:
    return name == STANDARD_LIBRARY or (name.isidentifier() and find_spec(name) is not None)


def _read(name: str, file: Path, time_limit: float) -> None:
    """Read a package into `file` in a separate process; skip a file that exists."""
    if file.is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "docstrings.json"
        home = Path(folder) / "home"
        home.mkdir()
        problem = _run(name, output, home, time_limit)
        read = read_json(output) if output.is_file() else {"objects": [], "problems": []}
    read["problems"] += [{"module": name, "problem": problem}] if problem else []
    write_json(file, read)


def _run(name: str, output: Path, home: Path, time_limit: float) -> str | None:
    """Run `amer/data/docstrings.py`; return the problem with the package as a whole, or None."""
    kept = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
    # The seed fixes the order in which sets are printed in signatures.
    env = kept | NO_NETWORK | {"HOME": str(home), "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    search_path = json.dumps([os.path.abspath(folder) for folder in sys.path])
    command = [sys.executable, "-s", "-B", docstrings.__file__, name, str(output), search_path]
    try:
        run = subprocess.run(
            command, cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=time_limit, text=True
        )
    except subprocess.TimeoutExpired:
        return f"took more than {time_limit:g} s"
    if not output.is_file():
        last = (run.stderr.strip().splitlines() or [""])[-1]
        return f"ended its process with code {run.returncode}: {last[:200]}"
    return f"printed {run.stdout[:100]!r}" if run.stdout else None


def _entries(package: str, file: Path, drops: DroppedRecords) -> list[Entry]:
    """The usable entries of a package; `drops` notes the others and the package's problems."""
    read = read_json(file)
    for number, problem in enumerate(read["problems"], start=1):
        drops.add("problem when imported", Place(Path(package), "problem", number), **problem)
    entries = []
    for number, one in enumerate(read["objects"], start=1):
        place = Place(Path(package), "object", number)
        entry = _entry(one["name"], one["signature"], one["doc"], place)
        if not _is_summary(entry.summary):
            drops.add("no summary line", place, name=entry.name)
        elif len(_body(entry).split()) < MIN_TEXT:
            drops.add("nothing but a summary line", place, name=entry.name)
        else:
            entries.append(entry)
    return entries


def _is_summary(text: str) -> bool:
    """Whether the top of a docstring is a sentence, not a list, code or a section heading."""
    words = len(text.split())
    return MIN_SUMMARY <= words <= MAX_SUMMARY and text[0].isalpha() and not NO_SUMMARY.search(text)


def _entry(name: str, signature: str, doc: str, place: Place) -> Entry:
    """Split a docstring into summary and rest, after any signatures at its top (as in built-in functions)."""
    last = name.rpartition(".")[2]
    first, rest = _first_paragraph(doc)
    while re.match(rf"[\w.]*\b{re.escape(last)}\(", first):
        signature = signature or first[first.index("(") :]
        first, rest = _first_paragraph(rest)
    summary, *others = SENTENCE.split(" ".join(first.split()), maxsplit=1)
    body = "\n\n".join(part for part in (*others, rest) if part)
    if len(signature) > MAX_SIGNATURE:
        signature = signature[:MAX_SIGNATURE] + "..."
    return Entry(name, _plain(summary), f"{last}{signature}\n\n{body}", place)


def _first_paragraph(doc: str) -> tuple[str, str]:
    first, *rest = PARAGRAPH.split(doc.strip(), maxsplit=1)
    return first, "".join(rest).rstrip()


def _plain(text: str) -> str:
    """Remove the markup of reStructuredText and Markdown from a line."""
    for mark in (ROLE, LINK, EMPHASIS):
        text = mark.sub(r"\1", text)
    return text.replace("`", "").strip()


def _body(entry: Entry) -> str:
    return entry.text.partition("\n\n")[2]


def _distinct(entries: list[Entry], drops: DroppedRecords) -> list[Entry]:
    """The entries whose summary line and text are unique; `drops` notes the others."""
    summaries = Counter(_summary_key(entry) for entry in entries)
    bodies = Counter(_body_key(entry) for entry in entries)
    kept = []
    for entry in entries:
        if summaries[_summary_key(entry)] > 1:
            drops.add("summary line of several", entry.place, name=entry.name)
        elif bodies[_body_key(entry)] > 1:
            drops.add("text of several", entry.place, name=entry.name)
        else:
            kept.append(entry)
    return sorted(kept, key=lambda entry: entry.name)


def _summary_key(entry: Entry) -> str:
    return " ".join(re.findall(r"\w+", entry.summary.lower()))


def _body_key(entry: Entry) -> str:
    """The docstring without the object's own names, since the texts of many classes differ in these alone."""
    own = "|".join(re.escape(part) for part in sorted(entry.name.split("."), key=len, reverse=True))
    return " ".join(re.sub(rf"\b(?:{own})\b", "_", _body(entry)).split())


def _write_documents(file: Path, entries: list[Entry]) -> None:
    rows = [dict(zip(COLUMNS, (entry.name, entry.name, entry.text), strict=True)) for entry in entries]
    table = pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in COLUMNS]))
    with atomic_write(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _splits(entries: list[Entry]) -> dict[str, RetrievalDataset]:
    asked: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in entries:
        split = split_of(entry.name)
        if split != "reserved":
            asked[split].append(entry)
    return {
        split: RetrievalDataset(
            query_ids=[entry.name for entry in some],
            queries=[entry.summary for entry in some],
            targets=[[[entry.name]] for entry in some],
            answers=[[] for _ in some],
        )
        for split, some in asked.items()
        if some or split == "train"
    }
