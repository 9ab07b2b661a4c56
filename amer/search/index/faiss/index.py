"""Search with FAISS."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amer.corpus.store import DocumentStore
from amer.files import write_json
from amer.locks import share_directory
from amer.search.index.base import flat_queries
from amer.search.index.exact import nearest_allowed
from amer.search.index.faiss import library
from amer.search.index.faiss.building import (
    INDEX_FILE,
    INFO_FILE,
    add,
    build_file,
    checked_info,
    recorded_checksum,
    recorded_factory,
)
from amer.search.index.faiss.presets import factory_of
from amer.search.index.faiss.rescoring import Rescorer
from amer.search.index.faiss.tuning import EXACT, Setting, Tuned, exact_truth, recall_of, tune

MOST_LISTED = 2**22  # candidates per call, 12 bytes each
FEW = 2**14  # documents that the store reads in about 20 ms
CANDIDATE_COST = 128  # re-scoring one candidate takes as long as comparing the codes of so many documents


class FaissIndex:
    """A store in a FAISS index: memory-mapped from a folder, or a flat index in memory.

    Scores are always exact inner products: an index of codes re-scores its candidates from the store. A search for
    longer lists than the index was tuned for is proportionally wider. If the index still lists fewer documents than
    exist, the store is searched exactly.

    Attributes:
        store: The store that the index searches.
        setting: Search setting.
        recall: Recall of the nearest k documents against exact search, measured when the index was built.
        info: Contents of `index.json`. Empty for an index in memory.
    """

    def __init__(
        self,
        store: DocumentStore,
        index: Any = None,
        tuned: Tuned = EXACT,
        info: dict[str, Any] | None = None,
    ) -> None:
        """Copy the store's vectors into a flat index in memory (`4 * n * dim` bytes). For other indexes see `build`.

        Raises:
            ImportError: FAISS is not installed.
            ValueError: `tuned` has a width, but the index has none.
        """
        self.store = store
        self.setting, self.recall = tuned
        self.info = {} if info is None else info
        self._rescorer = Rescorer(store)
        if index is None:
            index = library.make_index("Flat", store.dim)
            add(index, store, show_progress_bar=False)
        if self.setting.width is not None:
            widths = library.widths(index, self.info.get("k", 1))
            if widths is None:
                raise ValueError(f"{self.setting} has a width, but this index has none: build the index again")
            library.set_width(index, self.setting.width)
            self._widest = widths[1]
        self._index = index

    def __repr__(self) -> str:
        return (
            f"FaissIndex({self.info.get('factory', 'Flat')}, {len(self.store)} documents, recall {self.recall:.3f}, "
            f"{self.setting})"
        )

    @classmethod
    def build(
        cls,
        store: DocumentStore,
        path: str | os.PathLike[str],
        index: str = "auto",
        recall: float = 0.95,
        k: int = 100,
        memory: int | None = None,
        queries: np.ndarray | None = None,
        train_size: int | None = None,
        seed: int = 0,
        show_progress_bar: bool = True,
    ) -> FaissIndex:
        """Build and tune an index, or resume an interrupted build. With another recall or k, only tune it again.

        `memory` does not limit the build itself, which needs memory for the training sample (`4 * dim` bytes per
        document) and then for the growing index.

        Args:
            store: The store to search.
            path: A folder: new, empty, or with an index of the same kind.
            index: "auto", "flat", "ivfpq", "hnsw" (see `presets`) or a `faiss.index_factory` string.
            recall: Share of the k nearest documents that the index must find, measured on the tuning queries.
            k: Length of the lists to tune for.
            memory: Bytes that the finished index may take; decides which preset is built. Default: available memory.
            queries: `(n, dim)` vectors to tune with. Default: vectors of random documents, each without its own
                document in the results.
            train_size: Number of random documents to fit lists and codes to. Default: 65,536, or 40 per list if that
                is more, but at most 4 GiB of vectors.
            seed: Seed of both random samples.
            show_progress_bar: Show the progress of adding documents and of the exact search.

        Raises:
            ImportError: FAISS is not installed.
            OSError: The disk is full, or another process is building the same index.
            ValueError: No preset fits the memory, FAISS does not know the index, or the recall cannot be reached.
        """
        if not 0 < recall <= 1 or k < 1:
            raise ValueError(f"recall must be above 0 and at most 1, and k at least 1, got {recall} and {k}")
        directory = Path(path)
        factory = recorded_factory(directory, index) or factory_of(index, len(store), store.dim, memory)
        library.make_index(factory, store.dim)
        info = {"store": store.identity, "encoder": store.encoder, "dim": store.dim, "index": index}
        info |= {"factory": factory, "train_size": train_size, "seed": seed}
        with share_directory(directory, INFO_FILE, info):
            build_file(store, directory, factory, train_size, seed, show_progress_bar)
            file, checksum = directory / INDEX_FILE, recorded_checksum(directory)
            tuned, sample = _tuned(store, file, factory, recall, k, queries, seed, show_progress_bar)
            measured = {"recall": tuned.recall, "recall_wanted": recall, "k": k, "sample": sample}
            made = {"faiss": library.import_faiss().__version__, "bytes": file.stat().st_size}
            write_json(directory / INFO_FILE, {**info, **tuned.setting._asdict(), **measured, **made, **checksum})
        return cls.open(store, directory)

    @classmethod
    def open(
        cls, store: DocumentStore, path: str | os.PathLike[str], device: str | torch.device = "cpu"
    ) -> FaissIndex:
        """Open a finished index, memory-mapped.

        Opening compares the checksum of the index, which reads the whole file. For files above 256 MB it does so only
        once per machine and remembers the result.

        Args:
            store: The store that the index was built from.
            path: Folder of the index.
            device: "cpu", or "cuda" for a copy on all GPUs (see `library.to_gpus`). The copy searches one call at a
                time and lists at most 2,048 candidates. Searches with a filter run on the CPU and are exact.

        Raises:
            ImportError: FAISS is not installed.
            OSError: A file is missing or damaged, or the index is not finished.
            ValueError: The index belongs to another store or to an earlier version of it, FAISS finds no GPU, or the
                index is not supported on GPUs.
        """
        info = checked_info(store, Path(path))
        index = library.read_index(Path(path) / INDEX_FILE)
        if (index.ntotal, index.d) != (len(store), store.dim):
            raise ValueError(
                f"{path} holds {index.ntotal} vectors of {index.d} values, the store {len(store)} of {store.dim}: "
                "build the index again in another folder"
            )
        opened = cls(store, index, Tuned(Setting(info["width"], info["candidates"]), info["recall"]), info)
        if torch.device(device).type != "cpu":
            opened._index = library.to_gpus(index)
        return opened

    def search(
        self, query_embeddings: np.ndarray | torch.Tensor, k: int, filter: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search as in `Index.search`."""
        shape, queries = flat_queries(query_embeddings, self.store.dim, k)
        if filter is None:
            width = self._width(k)
            parameters = library.search_parameters(self._index, width)
            scores, rows = self._completed(queries, k, width, parameters, None)
        else:
            scores, rows = self._find_allowed(queries, k, filter)
        return rows.numpy().reshape(shape), scores.numpy().reshape(shape)

    def _find_allowed(self, queries: torch.Tensor, k: int, filter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the index if that compares fewer documents than the filter allows, else the allowed documents."""
        matching = self.store.matching(filter)
        allowed, width = int(matching.sum()), None
        if allowed > FEW:
            width = self._width(k, allowed / len(self.store))
        parameters = self._worth(width, matching, allowed)
        if parameters is None:
            return nearest_allowed(self.store, queries, k, np.flatnonzero(matching))
        return self._completed(queries, k, width, parameters, matching)

    def _worth(self, width: int | None, matching: np.ndarray | None, allowed: int) -> Any | None:
        """Return search parameters, or None if exact search of the allowed documents is needed or no slower."""
        parameters = library.search_parameters(self._index, width, matching)
        if parameters is None or library.visited(self._index, width) >= allowed:
            return None
        return parameters

    def _width(self, k: int, share: float = 1.0) -> int | None:
        """Scale the tuned width up for a longer list, or for a filter that allows a share of the documents."""
        if self.setting.width is None:
            return None
        longer = max(1.0, k / self.info.get("k", k))
        return min(math.ceil(self.setting.width * longer / share), self._widest)

    def _listed(self, queries: torch.Tensor, k: int, parameters: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the index's lists, `(n, k)` scores and rows. They may hold padding although more documents exist."""
        if not self.setting.candidates:
            scores, rows = self._index.search(queries.numpy(), k, params=parameters)
            scores[rows < 0] = -np.inf  # FAISS pads with the lowest float
            return torch.from_numpy(scores), torch.from_numpy(rows)
        listed = max(k, min(k * self.setting.candidates, len(self.store)))
        parts = []
        for part in queries.split(max(1, MOST_LISTED // listed)):
            candidates = torch.from_numpy(self._index.search(part.numpy(), listed, params=parameters)[1])
            parts.append(self._rescorer.best(part, candidates, k))
        scores, rows = (torch.cat(column) for column in zip(*parts, strict=True))
        return scores, rows

    def _completed(
        self, queries: torch.Tensor, k: int, width: int | None, parameters: Any, matching: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the index. Repeat short lists with doubled widths, and complete the rest by exact search."""
        allowed = len(self.store) if matching is None else int(matching.sum())
        last = min(k, allowed) - 1
        scores, rows = self._listed(queries, k, parameters)
        short = (rows[:, last] < 0).nonzero().flatten()
        while len(short) and width is not None:
            width *= 2
            parameters = self._worth(width, matching, allowed)
            if parameters is None:
                break
            scores[short], rows[short] = self._listed(queries[short], k, parameters)
            short = short[rows[short, last] < 0]
        if len(short):
            exactly = np.arange(len(self.store)) if matching is None else np.flatnonzero(matching)
            scores[short], rows[short] = nearest_allowed(self.store, queries[short], k, exactly)
        return scores, rows


def _tuned(
    store: DocumentStore,
    file: Path,
    factory: str,
    recall: float,
    k: int,
    queries: np.ndarray | None,
    seed: int,
    show_progress_bar: bool,
) -> tuple[Tuned, int]:
    """Return setting and recall of a built index, and the number of tuning queries (0 for an exact index)."""
    if factory == "Flat":
        return EXACT, 0
    index = library.read_index(file)
    truth = exact_truth(store, queries, k, seed, show_progress_bar)

    def measure(setting: Setting) -> float:
        _, rows = FaissIndex(store, index, Tuned(setting, 0.0))._listed(truth.queries, k + 1)
        return recall_of(rows, truth)

    def cost(setting: Setting) -> float:
        return library.visited(index, setting.width) + CANDIDATE_COST * k * setting.candidates

    rescored = not library.holds_vectors(factory)
    return tune(measure, cost, recall, library.widths(index, k), rescored), len(truth.queries)
