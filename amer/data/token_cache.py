"""A disk cache of token vectors: the frozen encoder reads each question once, not in every epoch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers.utils import logging
from typing_extensions import TypedDict

from amer.data.dataset import RetrievalDataset
from amer.files import Count, atomic_write, differences, open_npy, read_manifest, write_json
from modeling_amer import QuestionEncoder, TokenVectors

INFO_FILE = "tokens.json"
CACHE_FILE = "cache.json"  # describes an unfinished cache
QUESTIONS_A_FILE = 1_024


class CacheInfo(TypedDict):
    """The fields of `tokens.json` that this package reads."""

    count: Count


class TokenCache:
    """The token vectors of a list of questions, in float16, read from disk on access.

    `cache[i]` holds the result of `QuestionEncoder.encode_tokens` for question i, in float16.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a finished cache.

        Raises:
            FileNotFoundError: The cache is missing or unfinished; call `build`, which resumes.
            OSError: A file is truncated.
        """
        self.path = Path(path)
        self.count = read_manifest(self.path / INFO_FILE, CacheInfo)["count"]
        parts = range(0, self.count, QUESTIONS_A_FILE)
        self._vectors = [open_npy(_file(self.path, "vectors", start)) for start in parts]
        self._places = [np.array(open_npy(_file(self.path, "places", start))) for start in parts]
        self._bounds = [np.array(open_npy(_file(self.path, "bounds", start))) for start in parts]

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        encoder: QuestionEncoder,
        questions: Sequence[str],
        batch_size: int = 64,
        show_progress_bar: bool = False,
    ) -> TokenCache:
        """Encode the questions and open the cache; a call after an interrupted or finished one reuses its files.

        Args:
            path: A folder that is new, or left by a call with the same questions and encoder.
            encoder: An encoder with mean pooling.
            questions: The texts.
            batch_size: Number of questions to encode at a time.
            show_progress_bar: Show how many files are done.

        Raises:
            ValueError: The folder holds a cache of other questions or another encoder.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps(list(questions)).encode()).hexdigest()
        info = {
            "encoder": encoder.name,
            "revision": encoder.revision,
            "prompt": encoder.prompt,
            "max_length": encoder.max_length,
            "dtype": str(encoder.model.dtype).removeprefix("torch."),
            "questions_sha256": digest,
        }
        if not (path / CACHE_FILE).is_file():
            write_json(path / CACHE_FILE, info)
        if differing := differences(read_manifest(path / CACHE_FILE, dict), info):
            raise ValueError(
                f"{path} holds token vectors of other questions or another encoder ({differing}): choose another "
                "folder, or remove this one, and it is built anew"
            )
        starts = range(0, len(questions), QUESTIONS_A_FILE)
        for start in logging.tqdm(starts, desc="Token vectors", disable=not show_progress_bar):
            if not _file(path, "bounds", start).is_file():  # written last
                tokens = encoder.encode_tokens(questions[start : start + QUESTIONS_A_FILE], batch_size)
                _write(path, start, tokens)
        write_json(path / INFO_FILE, {**info, "count": len(questions)})
        return cls(path)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> TokenVectors:
        part, place = divmod(range(self.count)[index], QUESTIONS_A_FILE)
        rows = slice(*self._bounds[part][place : place + 2])
        vectors = torch.from_numpy(np.array(self._vectors[part][rows]))
        places = torch.from_numpy(self._places[part][rows].astype(np.int64))
        return TokenVectors(vectors, places[:, :2], places[:, 2])


class TokenDataset(Dataset[dict[str, Any]]):
    """A split whose items carry cached token vectors: of the question, or of each part of the question.

    Args:
        dataset: The split.
        cache: The cache of the questions; with `of_parts`, the cache of `part_texts(dataset)`.
        of_parts: False: each item gets `tokens`, those of the question. True: it gets `part_tokens`, one per part.

    Raises:
        ValueError: The cache holds another number of texts.
    """

    def __init__(self, dataset: RetrievalDataset, cache: TokenCache, of_parts: bool = False) -> None:
        self.dataset = dataset
        self.cache = cache
        self.part_rows = {text: row for row, text in enumerate(part_texts(dataset))} if of_parts else None
        count, kind = (len(dataset), "questions") if self.part_rows is None else (len(self.part_rows), "parts")
        if count != len(cache):
            raise ValueError(f"The split has {count} {kind}, the cache {len(cache)}: pass the cache of this split.")

    @classmethod
    def build(
        cls,
        root: str | os.PathLike[str],
        dataset: RetrievalDataset,
        encoder: QuestionEncoder,
        of_parts: bool = False,
        show_progress_bar: bool = False,
    ) -> TokenDataset:
        """Open the cache of a split in `root`, or build it.

        Args:
            root: A folder for the caches of any number of splits.
            dataset: A split with texts.
            encoder: An encoder with mean pooling.
            of_parts: Cache the parts of the questions, for a model that splits questions.
            show_progress_bar: Show how many files are done.

        Raises:
            ValueError: The cache was built with another encoder.
        """
        texts = part_texts(dataset) if of_parts else dataset.queries or []
        own = Path(root, hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16])
        return cls(dataset, TokenCache.build(own, encoder, texts, show_progress_bar=show_progress_bar), of_parts)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def queries(self) -> list[str] | None:
        """The texts of the questions. Reading them opens no token vectors."""
        return self.dataset.queries

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        if self.part_rows is None:
            return {**item, "tokens": self.cache[index]}
        texts = [item["query"][start:end] for start, end in item["spans"]]
        return {**item, "part_tokens": [self.cache[self.part_rows[text]] for text in texts]}


def part_texts(dataset: RetrievalDataset) -> list[str]:
    """The parts of all questions of a split with spans, each text once, in alphabetical order."""
    questions = zip(dataset.queries or [], dataset.spans or [], strict=True)
    return sorted({question[start:end] for question, own in questions for start, end in own})


def _file(path: Path, kind: str, start: int) -> Path:
    return path / f"{kind}-{start:08d}.npy"


def _write(path: Path, start: int, tokens: Sequence[TokenVectors]) -> None:
    """Write three files: vectors `(tokens, dim)`, places `(tokens, 3)`, and bounds, where each question begins."""
    columns = [torch.cat([question.offsets, question.words[:, None]], dim=1) for question in tokens]
    arrays = {
        "vectors": torch.cat([question.vectors for question in tokens]).to(torch.float16).numpy(),
        "places": torch.cat(columns).to(torch.int32).numpy(),
        "bounds": np.cumsum([0, *(len(question.vectors) for question in tokens)]),
    }
    for kind, array in arrays.items():
        with atomic_write(_file(path, kind, start)) as temporary:
            np.save(temporary, array, allow_pickle=False)
