"""WordNet senses: a query is a lemma, its targets are the glosses of its 2 to 8 senses, the corpus is all glosses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import amer
from amer.data.building import twentieth
from amer.data.dataset import SPLITS, RetrievalDataset, save_dataset_dir
from amer.files import atomic_directory, atomic_write, read_parquet

EXTRACT = Path(__file__).parent / "wordnet_extract"
LICENSE = EXTRACT / "LICENSE.WordNet"
"""The WordNet 3.0 files of this package, made by `write_extract`."""

PARTS_OF_SPEECH = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
MIN_SENSES, MAX_SENSES = 2, 8


class WordNet(NamedTuple):
    """Glosses and senses in the order of WordNet's files: nouns, verbs, adjectives, adverbs, each by offset.

    Attributes:
        glosses: Document id (part of speech and offset, e.g. "n09213565") -> the whole gloss with its examples.
        senses: Lemma -> the ids of its glosses; the lemmas are sorted.
    """

    glosses: dict[str, str]
    senses: dict[str, list[str]]


def split_of(lemma: str) -> str:
    """The split of a lemma, fixed by its SHA-1: "train", "validation", "test" or "reserved" (never used)."""
    return {0: "reserved", 1: "test", 2: "validation"}.get(twentieth(lemma), "train")


def parse_wordnet(folder: str | os.PathLike[str]) -> WordNet:
    """Read `data.noun`, `data.verb`, `data.adj` and `data.adv` of a WordNet `dict` folder (format: wndb(5)).

    Lemmas are in lower case as in WordNet's own index, with spaces for underscores and without the adjective markers
    "(a)", "(p)", "(ip)". A synset with two spellings of a lemma ("Earth", "earth") counts as one sense.

    Raises:
        FileNotFoundError: A data file is missing.
        ValueError: A line does not fit the format; the message names the file and the line.
    """
    glosses: dict[str, str] = {}
    senses: dict[str, list[str]] = {}
    for name, letter in PARTS_OF_SPEECH.items():
        for offset, words, gloss in _synsets(Path(folder) / f"data.{name}"):
            synset = f"{letter}{offset}"
            glosses[synset] = gloss
            for lemma in dict.fromkeys(map(_lemma, words)):
                senses.setdefault(lemma, []).append(synset)
    return WordNet(glosses, dict(sorted(senses.items())))


def _synsets(file: Path) -> Iterator[tuple[str, list[str], str]]:
    """Yield offset, words and gloss of every line; skip the licence at the top, which is indented by two spaces."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith("  "):
                continue
            record, bar, gloss = line.partition("| ")
            fields = record.split()
            try:
                offset, count = fields[0], int(fields[3], 16)
                words = fields[4 : 4 + 2 * count : 2]
            except (IndexError, ValueError):
                offset, count, words = "", 0, []
            if not bar or not gloss.strip() or len(offset) != 8 or not count or len(words) != count:
                raise ValueError(f"{file}, line {number} is not a synset in WordNet's format, wndb(5): {line[:60]!r}")
            yield offset, words, gloss.strip()


def _lemma(word: str) -> str:
    for marker in ("(a)", "(p)", "(ip)"):
        word = word.removesuffix(marker)
    return word.replace("_", " ").lower()


def write_extract(dict_folder: str | os.PathLike[str], folder: str | os.PathLike[str] = EXTRACT) -> None:
    """Pack a WordNet `dict` folder into `glosses.parquet` (id, text) and `lemmas.parquet` (lemma, ids).

    The files hold all glosses, and all lemmas except the reserved ones.
    """
    wordnet = parse_wordnet(dict_folder)
    senses = {lemma: ids for lemma, ids in wordnet.senses.items() if split_of(lemma) != "reserved"}
    glosses = pa.table({"id": list(wordnet.glosses), "text": list(wordnet.glosses.values())})
    lemmas = pa.table({"lemma": list(senses), "ids": list(senses.values())})
    for name, table in (("glosses", glosses), ("lemmas", lemmas)):
        with atomic_write(Path(folder) / f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd", compression_level=22, use_dictionary=False)


def read_extract(folder: str | os.PathLike[str] = EXTRACT) -> WordNet:
    """Read the files that `write_extract` wrote."""
    glosses = read_parquet(Path(folder) / "glosses.parquet")
    lemmas = read_parquet(Path(folder) / "lemmas.parquet")
    return WordNet(
        dict(zip(glosses["id"].to_pylist(), glosses["text"].to_pylist(), strict=True)),
        dict(zip(lemmas["lemma"].to_pylist(), lemmas["ids"].to_pylist(), strict=True)),
    )


def query_lemmas(wordnet: WordNet, min_senses: int = MIN_SENSES, max_senses: int = MAX_SENSES) -> dict[str, list[str]]:
    """The sorted lemmas of each split with this number of senses; senses of all parts of speech count."""
    lemmas: dict[str, list[str]] = {split: [] for split in SPLITS}
    for lemma, ids in wordnet.senses.items():
        split = split_of(lemma)
        if split != "reserved" and min_senses <= len(ids) <= max_senses:
            lemmas[split].append(lemma)
    return lemmas


def build_wordnet(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
    corpus_size: int | None = None,
    seed: int = 0,
    min_senses: int = MIN_SENSES,
    max_senses: int = MAX_SENSES,
) -> None:
    """Write the WordNet senses benchmark: `path/dataset/` and `path/documents.parquet`, the corpus to encode.

    Each sense is one target with one gloss. The lemma is the query and its id. Documents have `id`, `title` and
    `text`; titles are empty, because the title of a synset would be the query.

    Args:
        path: A directory that does not exist yet, or is empty.
        source: A `dict` folder of WordNet 3.0; None for the extract in this package.
        num_train: Number of training queries, chosen at random; None for all, 0 to leave the split out.
        num_validation: See `num_train`.
        num_test: See `num_train`.
        corpus_size: Number of documents: all targets of the chosen queries, then glosses chosen at random; None for
            all glosses.
        seed: Seed of both random choices; the same seed gives the same bytes.
        min_senses: Smallest number of senses of a lemma. For single-target questions (`build_compound`), set it and
            `max_senses` to 1.
        max_senses: Largest number of senses of a lemma.

    Raises:
        FileExistsError: `path` is not empty.
        FileNotFoundError: `source` lacks a data file.
        ValueError: There are fewer queries or documents than requested, the corpus is smaller than the targets, or
            the numbers of senses are out of range.
    """
    if not 1 <= min_senses <= max_senses:
        raise ValueError(f"min_senses is {min_senses} and max_senses {max_senses}: choose 1 <= min <= max")
    wordnet = read_extract() if source is None else parse_wordnet(source)
    rng = np.random.default_rng(seed)
    wanted = {"train": num_train, "validation": num_validation, "test": num_test}
    lemmas = query_lemmas(wordnet, min_senses, max_senses)
    chosen = {split: _choose(lemmas[split], wanted[split], f"num_{split}", rng) for split in lemmas}
    splits = {split: _dataset(some, wordnet) for split, some in chosen.items() if some}
    needed = {synset for some in chosen.values() for lemma in some for synset in wordnet.senses[lemma]}
    corpus = _corpus(list(wordnet.glosses), needed, corpus_size, rng)
    documents = pa.table({
        "id": pa.array(corpus, pa.string()),
        "title": pa.repeat(pa.scalar("", pa.string()), len(corpus)),
        "text": pa.array([wordnet.glosses[synset] for synset in corpus], pa.string()),
    })  # fmt: skip
    info = {
        "source": "WordNet 3.0",
        "licence": "WordNet License",
        "builder": f"amer.data.wordnet {amer.__version__}",
        "arguments": {f"num_{split}": number for split, number in wanted.items()}
        | {"corpus_size": corpus_size, "seed": seed, "min_senses": min_senses, "max_senses": max_senses},
        "corpus": {"documents": len(corpus), "targets": len(needed)},
    }
    with atomic_directory(path) as folder:
        save_dataset_dir(folder / "dataset", splits, info)
        pq.write_table(documents, folder / "documents.parquet", compression="zstd")
        for copy in (folder, folder / "dataset"):  # the licence requires itself in every copy
            shutil.copyfile(LICENSE, copy / LICENSE.name)


def _choose(items: list[str], number: int | None, name: str, rng: np.random.Generator) -> list[str]:
    """Choose `number` items at random and keep their order; None chooses all."""
    if number is None:
        return items
    if not 0 <= number <= len(items):
        raise ValueError(f"{name} is {number}: it must be between 0 and {len(items)}, the number available")
    return [items[index] for index in np.sort(rng.permutation(len(items))[:number])]


def _corpus(synsets: list[str], needed: set[str], size: int | None, rng: np.random.Generator) -> list[str]:
    """`needed` and other synsets chosen at random, `size` in all, in WordNet's order; None keeps all synsets."""
    if size is None:
        return synsets
    if size < len(needed):
        raise ValueError(f"corpus_size is {size}, but the queries have {len(needed)} targets: give at least that many")
    if size > len(synsets):
        raise ValueError(f"corpus_size is {size}, but there are {len(synsets)} glosses: give None for all of them")
    others = [synset for synset in synsets if synset not in needed]
    kept = needed.union(_choose(others, size - len(needed), "corpus_size", rng))
    return [synset for synset in synsets if synset in kept]


def _dataset(lemmas: list[str], wordnet: WordNet) -> RetrievalDataset:
    return RetrievalDataset(
        query_ids=lemmas,
        queries=lemmas,
        targets=[[[synset] for synset in wordnet.senses[lemma]] for lemma in lemmas],
        answers=[[] for _ in lemmas],
    )
