"""BM25 over a corpus: an index of bm25s on disk, memory-mapped by every search."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from amer.corpus.table import checked_documents, fingerprint
from amer.files import UNREADABLE, atomic_directory, read_manifest, write_json

INFO_FILE = "bm25.json"
# Lucene's BM25 with the k1 and b of Pyserini. As Lucene cuts text, a word may be a single character and holds its
# apostrophes, which the stemmer takes away. bm25s' English stop words are Lucene's.
PARAMETERS = {"method": "lucene", "k1": 0.9, "b": 0.4}
ANALYSIS = {"splitter": r"\w+(?:'\w+)*", "stemmer": "english", "stopwords": "english"}
READ_ROWS = 1_024  # documents read at a time


class BM25:
    """Searches documents by their words.

    A search reads the postings of the question's words from the mapped files, and takes 4 bytes a document of memory
    for the scores while it runs.

    Attributes:
        name: what the search is called.
    """

    name = "BM25"

    def __init__(self, index: Any) -> None:
        """Use `BM25.open`, which checks the folder."""
        self._index = index
        self._tokenizer = _tokenizer()
        self._tokenizer.stem_to_sid = index.vocab_dict

    @classmethod
    def build(cls, documents: pa.Table, path: str | os.PathLike[str], show_progress_bar: bool = False) -> BM25:
        """Index a corpus, whole or not at all. A document's text is its title, a space and its text.

        The postings are held in memory while they are sorted: 25 million passages of 100 words need some 75 GB.

        Args:
            documents: columns `id`, `title`, `text`.
            path: a directory that does not exist yet, or is empty.
            show_progress_bar: show the bars of bm25s.

        Raises:
            FileExistsError: `path` already holds something.
            ValueError: the documents break the contract, or hold no word but stop words.
        """
        import bm25s

        documents = checked_documents(documents)
        with atomic_directory(path) as folder:
            words = _tokenizer().tokenize(
                _texts(documents),
                update_vocab=True,
                show_progress=show_progress_bar,
                length=documents.num_rows,
                return_as="tuple",
                allow_empty=False,
            )
            if not words.vocab:
                raise ValueError("the documents hold no word but stop words: there is nothing to index")
            index = bm25s.BM25(**PARAMETERS, csc_backend="scipy")  # less memory than by itself
            index.index(words, create_empty_token=False, show_progress=show_progress_bar)
            index.save(folder)
            write_json(folder / INFO_FILE, _info(documents))
        return cls._mapped(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], documents: pa.Table) -> BM25:
        """Open an index, memory-mapped, after reading the whole corpus once to see that it is of these documents.

        For 25 million passages of 100 words that takes half a minute and the reading of 16 GB.

        Args:
            path: where `build` wrote it.
            documents: the corpus it was built from.

        Raises:
            FileNotFoundError: there is no finished index.
            OSError: it is damaged.
            ValueError: it is of another corpus, or of other parameters.
        """
        path = Path(path)
        if not (path / INFO_FILE).is_file():
            raise FileNotFoundError(f"{path} has no {INFO_FILE}, so it is no BM25 index: build one with BM25.build")
        recorded, expected = read_manifest(path / INFO_FILE, dict), _info(documents)
        differing = [key for key, value in expected.items() if recorded.get(key) != value]
        if differing:
            raise ValueError(f"{path} is a BM25 index of another {', '.join(differing)}: build one of this corpus")
        return cls._mapped(path)

    @classmethod
    def _mapped(cls, path: str | os.PathLike[str]) -> BM25:
        import bm25s

        try:
            return cls(bm25s.BM25.load(path, mmap=True))
        except (LookupError, AttributeError, *UNREADABLE) as error:
            raise OSError(f"{path} is damaged ({error!r}): delete it and build the index again") from error

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best documents of every text.

        Args:
            texts: questions, or anything else.
            k: length of each list; where fewer documents share a word with the text, row -1 and score -inf fill up.

        Returns:
            rows `(n, k)` int64 and scores `(n, k)` float32, best first, of equal scores the lower row first.

        Raises:
            ValueError: k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        words = self._tokenizer.tokenize(texts, update_vocab=False, show_progress=False)
        rows = np.full((len(texts), k), -1, dtype=np.int64)
        scores = np.full((len(texts), k), -np.inf, dtype=np.float32)
        for row, ids in enumerate(words):
            found, found_scores = _best(self._index.get_scores_from_ids(ids), k)
            rows[row, : len(found)], scores[row, : len(found)] = found, found_scores
        return rows, scores


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and scores of the k greatest positive scores, of equal ones the lower row first.

    bm25s' own selection breaks ties by chance, and fills up with documents that share no word with the text.
    """
    rows = np.flatnonzero(scores)
    if len(rows) > k:
        rows = rows[scores[rows] >= np.partition(scores[rows], -k)[-k]]
    rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
    return rows, scores[rows]


def _texts(documents: pa.Table) -> Iterator[str]:
    for batch in documents.select(["title", "text"]).to_batches(max_chunksize=READ_ROWS):
        for title, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield f"{title} {text}"


def _tokenizer() -> Any:
    import Stemmer
    from bm25s.tokenization import Tokenizer

    return Tokenizer(**{**ANALYSIS, "stemmer": Stemmer.Stemmer(ANALYSIS["stemmer"])})


def _info(documents: pa.Table) -> dict[str, Any]:
    """What an index is of."""
    return {"documents_sha256": fingerprint(documents), **PARAMETERS, **ANALYSIS}
