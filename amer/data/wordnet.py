"""WordNet senses: a query is a lemma, its targets the glosses of its 2 to 8 senses, the corpus all glosses."""

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
"""WordNet 3.0 as shipped in the package; made by `write_extract`."""

PARTS_OF_SPEECH = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
MIN_SENSES, MAX_SENSES = 2, 8


class WordNet(NamedTuple):
    """Glosses and senses, both in the order of WordNet's files: noun, verb, adjective, adverb, then by offset.

    Attributes:
        glosses: document id (part of speech and offset, e.g. "n09213565") -> the whole gloss, examples included.
        senses: lemma -> the ids of its glosses; the lemmas are sorted.
    """

    glosses: dict[str, str]
    senses: dict[str, list[str]]


def split_of(lemma: str) -> str:
    """The split of a lemma, fixed by its SHA-1: "train", "validation", "test" or "reserved" (never used)."""
    return {0: "reserved", 1: "test", 2: "validation"}.get(twentieth(lemma), "train")


def parse_wordnet(folder: str | os.PathLike[str]) -> WordNet:
    """Read `data.noun`, `data.verb`, `data.adj` and `data.adv` of a WordNet `dict` folder (format: wndb(5)).

    Lemmas are lower case as in WordNet's own index, with spaces for underscores and without the adjective markers
    "(a)", "(p)", "(ip)". A lemma that a synset spells twice ("Earth", "earth") has that sense once.

    Raises:
        FileNotFoundError: a data file is missing.
        ValueError: a line does not fit the format; names the file and the line.
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
    """Offset, words as spelled and gloss of every line; the licence at the top, indented by two spaces, is skipped."""
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
                raise ValueError(f"{file}, line {number} is no synset in WordNet's format, wndb(5): {line[:60]!r}")
            yield offset, words, gloss.strip()


def _lemma(word: str) -> str:
    for marker in ("(a)", "(p)", "(ip)"):
        word = word.removesuffix(marker)
    return word.replace("_", " ").lower()


def write_extract(dict_folder: str | os.PathLike[str], folder: str | os.PathLike[str] = EXTRACT) -> None:
    """Pack a WordNet `dict` folder into `glosses.parquet` (id, text) and `lemmas.parquet` (lemma, ids).

    All of its glosses, and all of its lemmas but the reserved ones.
    """
    wordnet = parse_wordnet(dict_folder)
    senses = {lemma: ids for lemma, ids in wordnet.senses.items() if split_of(lemma) != "reserved"}
    glosses = pa.table({"id": list(wordnet.glosses), "text": list(wordnet.glosses.values())})
    lemmas = pa.table({"lemma": list(senses), "ids": list(senses.values())})
    for name, table in (("glosses", glosses), ("lemmas", lemmas)):
        with atomic_write(Path(folder) / f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd", compression_level=22, use_dictionary=False)


def read_extract(folder: str | os.PathLike[str] = EXTRACT) -> WordNet:
    """Read what `write_extract` wrote."""
    glosses = read_parquet(Path(folder) / "glosses.parquet")
    lemmas = read_parquet(Path(folder) / "lemmas.parquet")
    return WordNet(
        dict(zip(glosses["id"].to_pylist(), glosses["text"].to_pylist(), strict=True)),
        dict(zip(lemmas["lemma"].to_pylist(), lemmas["ids"].to_pylist(), strict=True)),
    )


def query_lemmas(wordnet: WordNet, min_senses: int = MIN_SENSES, max_senses: int = MAX_SENSES) -> dict[str, list[str]]:
    """The lemmas with so many senses over all parts of speech, sorted, by split: "train", "validation", "test"."""
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

    One cluster of one gloss per sense; the lemma itself is the query and its id. Documents have `id`, `title` and
    `text`; titles are empty, for a synset's title would be the query.

    Args:
        path: a directory that does not exist yet, or is empty.
        source: a `dict` folder of WordNet 3.0; None for the extract shipped in the package.
        num_train: a random choice of so many training queries; None for all, 0 to leave the split out.
        num_validation: see `num_train`.
        num_test: see `num_train`.
        corpus_size: all targets of the chosen queries plus a random choice of other glosses; None for every gloss.
        seed: of both choices; the same seed gives the same bytes.
        min_senses: senses a lemma must have; 1 with `max_senses` 1 for questions of one target (`build_compound`).
        max_senses: senses it may have.

    Raises:
        FileExistsError: `path` already holds something.
        FileNotFoundError: `source` lacks a data file.
        ValueError: more queries or documents asked for than there are, a corpus smaller than the targets, or numbers
            of senses that no lemma can have.
    """
    if not 1 <= min_senses <= max_senses:
        raise ValueError(f"min_senses is {min_senses} and max_senses {max_senses}: needed is 1 <= min <= max")
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
        for copy in (folder, folder / "dataset"):  # which the licence asks to be with every copy
            shutil.copyfile(LICENSE, copy / LICENSE.name)


def _choose(items: list[str], number: int | None, name: str, rng: np.random.Generator) -> list[str]:
    """A random choice of `number` items, in their own order; all of them for None."""
    if number is None:
        return items
    if not 0 <= number <= len(items):
        raise ValueError(f"{name} is {number}: it must be between 0 and {len(items)}, all there are")
    return [items[index] for index in np.sort(rng.permutation(len(items))[:number])]


def _corpus(synsets: list[str], needed: set[str], size: int | None, rng: np.random.Generator) -> list[str]:
    """`needed` and a random choice of the other synsets, `size` in all, in WordNet's order; all of them for None."""
    if size is None:
        return synsets
    if size < len(needed):
        raise ValueError(f"corpus_size is {size}, but the queries have {len(needed)} targets: give at least that")
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
