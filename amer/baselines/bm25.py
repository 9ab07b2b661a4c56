"""BM25 search over a corpus with a bm25s index on disk; every search memory-maps it."""

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
# Lucene's BM25 with the k1 and b of Pyserini. As in Lucene, a word may be a single character, and it keeps its
# apostrophes until the stemmer removes them. The English stop words of bm25s are Lucene's.
PARAMETERS = {"method": "lucene", "k1": 0.9, "b": 0.4}
ANALYSIS = {"splitter": r"\w+(?:'\w+)*", "stemmer": "english", "stopwords": "english"}
READ_ROWS = 1_024  # documents to read at a time


class BM25:
    """Searches documents by their words.

    A search reads the postings of the question's words from the mapped files. Its scores take 4 bytes of memory per
    document.

    Attributes:
        name: Name of the search.
    """

    name = "BM25"

    def __init__(self, index: Any) -> None:
        """Internal: call `BM25.open` instead, which checks the folder."""
        self._index = index
        self._tokenizer = _tokenizer()
        self._tokenizer.stem_to_sid = index.vocab_dict

    @classmethod
    def build(cls, documents: pa.Table, path: str | os.PathLike[str], show_progress_bar: bool = False) -> BM25:
        """Index a corpus, whole or not at all. A document's text is its title, a space and its text.

        The postings are sorted in memory: 25 million passages of 100 words need about 75 GB.

        Args:
            documents: Table with the columns `id`, `title`, `text`.
            path: A directory that does not exist yet, or is empty.
            show_progress_bar: Show the progress bars of bm25s.

        Raises:
            FileExistsError: `path` is not empty.
            ValueError: The documents are invalid, or hold only stop words.
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
                raise ValueError("the documents hold only stop words: there is nothing to index")
            index = bm25s.BM25(**PARAMETERS, csc_backend="scipy")  # uses less memory than the default
            index.index(words, create_empty_token=False, show_progress=show_progress_bar)
            index.save(folder)
            write_json(folder / INFO_FILE, _info(documents))
        return cls._mapped(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], documents: pa.Table) -> BM25:
        """Open an index, memory-mapped. This reads the whole corpus once, to check that the index belongs to it.

        For 25 million passages of 100 words the check reads 16 GB and takes half a minute.

        Args:
            path: The folder that `build` wrote.
            documents: The corpus that the index was built from.

        Raises:
            FileNotFoundError: There is no finished index.
            OSError: The index is damaged.
            ValueError: The index is of another corpus, or has other parameters.
        """
        path = Path(path)
        if not (path / INFO_FILE).is_file():
            raise FileNotFoundError(f"{path} is no BM25 index, as it has no {INFO_FILE}: build one with BM25.build")
        recorded, expected = read_manifest(path / INFO_FILE, dict), _info(documents)
        differing = [key for key, value in expected.items() if recorded.get(key) != value]
        if differing:
            raise ValueError(f"{path} is a BM25 index with another {', '.join(differing)}: build one of this corpus")
        return cls._mapped(path)

    @classmethod
    def _mapped(cls, path: str | os.PathLike[str]) -> BM25:
        import bm25s

        try:
            return cls(bm25s.BM25.load(path, mmap=True))
        except (LookupError, AttributeError, *UNREADABLE) as error:
            raise OSError(f"{path} is damaged ({error!r}): delete it and build the index again") from error

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search the k best documents of every text.

        Args:
            texts: Questions or other texts.
            k: Length of each list; row -1 and score -inf pad it if fewer documents share a word with the text.

        Returns:
            rows `(n, k)` int64 and scores `(n, k)` float32, best first; among equal scores, the lower row first.

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
    """The rows and scores of the k greatest positive scores; among equal scores, the lower row first.

    bm25s' own selection breaks ties at random, and pads with documents that share no word with the text.
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
    """A description of the corpus and the parameters of an index."""
    return {"documents_sha256": fingerprint(documents), **PARAMETERS, **ANALYSIS}
