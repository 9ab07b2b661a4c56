"""Search a document store: encode a question into query vectors, search with each, fuse the result lists."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch

from amer.corpus.encoder import DocumentEncoder
from amer.corpus.filters import Filter
from amer.corpus.store import DocumentStore, write_store
from amer.hub import pull_folder
from amer.machine import chosen_device, chosen_dtype
from amer.offline import resolve_model
from amer.search.attribution import VectorWords, text_of, words_by_vector
from amer.search.fusion import FUSIONS, Fused, Fusion, trained_fusion
from amer.search.index import ExactIndex, Index, open_index
from amer.search.index.opening import COLLECTION
from amer.search.lists import search_lists
from amer.search.query_encoding import query_embeddings_of

if TYPE_CHECKING:
    from modeling_amer import AMERModel

SEARCHED_TOGETHER = 256  # questions per search: an exact search reads the whole store once for all of them
Found = TypeVar("Found")


class Hit(NamedTuple):
    """A document that a search found.

    Attributes:
        id: ID of the document.
        score: Score that ranks the documents.
        title: Title of the document.
        text: Text of the document.
        found_by: Query vector that found the document first, counted from 0.
        found_at: Rank of the document in that query vector's list, counted from 0.
        metadata: Metadata of the document.
        part: Words of the question that the query vector stands for. Empty unless `search` got `attribute=True`.
    """

    id: str
    score: float
    title: str
    text: str
    found_by: int
    found_at: int
    metadata: Mapping[str, Any] = MappingProxyType({})
    part: str = ""


class Searcher:
    """Finds documents for questions. Thread-safe if the model is.

        searcher = Searcher.from_pretrained("org/amer-qwen3-4b", store="org/wikipedia-store")
        hits = searcher.search("bank", k=10)[0]

    Attributes:
        model: Model with `encode_query` and an `AMERConfig`.
        index: Index that searches the store.
        store: Store of the index, which holds the documents.
        encoder: Document encoder that embeds the questions for an anchored model. None for a model that reads token
            vectors: it embeds the questions itself.
    """

    def __init__(
        self,
        model: Any,
        index: Index,
        encoder: DocumentEncoder | None = None,
    ) -> None:
        """Check that the model and the store use the same embedding space.

        Args:
            model: An `AMERModel`, or any object with its `encode_query` and configuration.
            index: An `ExactIndex`, `FaissIndex`, `MilvusIndex` or another `Index`.
            encoder: The document encoder. Required for an anchored model that does not read token vectors.

        Raises:
            ValueError: The model or the encoder does not match the store's document encoder or dimension, or an
                anchored model has no encoder.
        """
        self.model = model
        self.index = index
        self.store: DocumentStore = index.store
        self.encoder = encoder
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # from_documents: holds the store
        config = model.config
        self.store.check_encoder(config.document_encoder)
        if config.document_dim != self.store.dim:
            raise ValueError(
                f"the model's vectors have {config.document_dim} values, the store's {self.store.dim}: use the store "
                "that the model was trained for"
            )
        if config.needs_question_vectors and encoder is None:
            raise ValueError(f"an anchored model reads the question's embedding: pass encoder ({self.store.encoder})")
        if encoder is not None:
            self.store.check_encoder(encoder.identity)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | AMERModel,
        store: str | os.PathLike[str] | DocumentStore,
        index: str | os.PathLike[str] | Index | None = None,
        *,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: str | None = None,
        collection: str = COLLECTION,
        timeout: float = 60.0,
        dtype: str | torch.dtype | None = None,
    ) -> Searcher:
        """Open a model, its document store and index, and the document encoder if the model needs it.

        Args:
            model: A folder, a name on the Hub, or an open model. If it is loaded here in float32, its LoRA is merged.
            store: A folder, a name on the Hub (`org/name` or `org/name@revision`), or an open store.
            index: The folder of a FAISS index, the address or file of Milvus, or an open index of the store. Default:
                exact search. See `open_index`.
            device: Device of the model, the encoder and exact search. Default: a GPU if there is one, else the CPU.
            trust_remote_code: Run the code in the document encoder's repository.
            revision: Commit, tag or branch of the model on the Hub.
            token: Hub token. Default: the token of your login.
            collection: Name of the Milvus collection.
            timeout: Seconds that a call to Milvus may take.
            dtype: Precision of the model: "float32", "bfloat16", or "auto", which is bfloat16 if the device supports
                it natively, else float32. Default: the precision of the saved weights. Not for an open model.

        Raises:
            OSError: The model, store or index is missing or damaged. The message names it.
            ValueError: The model, store and index do not belong together, `dtype` is unknown, or `dtype` is given for
                an open model.
        """
        device = chosen_device(device)
        opened = open_model(model, device, revision, token, dtype)
        if not isinstance(store, DocumentStore):
            store = DocumentStore.open(pull_folder(store, token=token))
        if index is None or isinstance(index, str | os.PathLike):
            index = open_index(store, index, device, collection, timeout=timeout)
        encoder = None
        if opened.config.needs_question_vectors:
            encoder = DocumentEncoder.from_identity(store.encoder, device, trust_remote_code, token=token)
        return cls(opened, index, encoder)

    @classmethod
    def from_documents(
        cls,
        model: str | os.PathLike[str] | AMERModel,
        documents: Sequence[str] | pa.Table,
        *,
        encoder: DocumentEncoder | None = None,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> Searcher:
        """Encode a small corpus and search it: a quick start with a few texts.

        The vectors are in a temporary folder, deleted together with the searcher. To keep them, use `encode_corpus`.

        Args:
            model: A folder, a name on the Hub, or an open model.
            documents: Strings, which get the IDs "0", "1", ..., or a table with the columns `id`, `title`, `text`.
            encoder: Document encoder of the model. Default: the one that the model's configuration names.
            device: Device of the model, the encoder and the search. Default: a GPU if there is one, else the CPU.
            trust_remote_code: Run the code in the document encoder's repository.
            revision: Commit, tag or branch of the model on the Hub.
            token: Hub token. Default: the token of your login.

        Raises:
            OSError: The model or its encoder cannot be found.
            TypeError: A document is not a string.
            ValueError: There are no documents, or the model's configuration names no document encoder.
        """
        device = chosen_device(device)
        opened = open_model(model, device, revision, token)
        if encoder is None:
            if not opened.config.document_encoder:
                raise ValueError("the model's configuration names no document encoder: pass encoder=")
            encoder = DocumentEncoder.from_identity(
                opened.config.document_encoder, device, trust_remote_code, token=token
            )
        table = documents if isinstance(documents, pa.Table) else _table_of_texts(documents)
        folder = tempfile.TemporaryDirectory(prefix="amer-documents-")
        store = write_store(Path(folder.name), table, encoder.encode_documents(table), encoder.identity, "float32")
        searcher = cls(opened, ExactIndex(store, device), encoder)
        searcher._folder = folder
        return searcher

    def search(
        self,
        questions: str | Sequence[str],
        k: int = 10,
        num_query_vectors: int | Literal["auto"] | None = None,
        fusion: str | Fusion | None = None,
        batch_size: int = 64,
        filter: str | None = None,
        attribute: bool = False,
    ) -> list[list[Hit]]:
        """Find the best documents for each question.

        Args:
            questions: One question or several.
            k: Number of documents per question, and length of each query vector's list.
            num_query_vectors: Number of query vectors m, or "auto" to let the model choose. Default: "auto" if the
                model can choose, else the model's own number.
            fusion: How to combine the m lists: "round_robin", "reciprocal_rank", "max_score" or a function such as
                `functools.partial(mixture, temperature=...)`. Default: the fusion that fits the model's training
                objective, `round_robin` or `mixture`.
            batch_size: Number of questions to encode at a time.
            filter: Condition on the metadata, such as `year >= 1990` (see `amer.corpus.filters`).
            attribute: Fill in `part` of each hit: the words that its query vector stands for (see `parts`). This runs
                the model once more on each question.

        Returns:
            One list per question with k hits, best first. A list is shorter only if fewer documents match.

        Raises:
            ValueError: There is no question, k < 1, the fusion is unknown, the filter does not fit the store, or the
                query vectors do not fit the index.
        """
        questions = _at_least_one(questions)
        answers = list(self.stream(questions, k, num_query_vectors, fusion, batch_size, filter))
        if not attribute:
            return answers
        parts = self._parts(questions, num_query_vectors, batch_size)
        return [
            [hit._replace(part=text_of(own, hit.found_by)) for hit in hits]
            for own, hits in zip(parts, answers, strict=True)
        ]

    def parts(self, question: str, num_query_vectors: int | Literal["auto"] | None = None) -> list[VectorWords]:
        """Find the words of a question that each query vector stands for.

        Args:
            question: One question.
            num_query_vectors: As in `search`.

        Returns:
            One part per query vector. An empty list if the model neither splits questions nor has token anchors.

        Raises:
            ValueError: The question is empty.
        """
        return self._parts([question], num_query_vectors, batch_size=1)[0]

    def _parts(
        self, questions: list[str], num_query_vectors: int | Literal["auto"] | None, batch_size: int
    ) -> list[list[VectorWords]]:
        """`parts` of several questions."""
        m = None if num_query_vectors == "auto" else num_query_vectors
        if self.model.config.splits_questions:
            found = self.model.find_parts(questions, m, batch_size)
            return [[VectorWords(part.text, [(part.start, part.end)]) for part in own] for own in found]
        if self.model.config.anchor != "tokens":
            return [[] for _ in questions]
        return [words_by_vector(question, self.model.attribute(question, m)) for question in questions]

    def stream(
        self,
        questions: Iterable[str],
        k: int = 10,
        num_query_vectors: int | Literal["auto"] | None = None,
        fusion: str | Fusion | None = None,
        batch_size: int = 64,
        filter: str | None = None,
    ) -> Iterator[list[Hit]]:
        """Search as in `search`, for any number of questions: yields answers in order and holds a few hundred.

        If a question is bad, the answers of all earlier groups of 256 questions still come first.

        Raises:
            TypeError: `questions` is a single string, or a question is not a string.
            ValueError: As in `search`.
        """
        if isinstance(questions, str):
            raise TypeError("stream takes many questions: pass a list, a file or a generator, or call search")
        groups = self._fused(questions, k, num_query_vectors, fusion, batch_size, filter, self._hits)
        return chain.from_iterable(groups)

    def search_rows(
        self,
        questions: str | Sequence[str],
        k: int = 10,
        num_query_vectors: int | Literal["auto"] | None = None,
        fusion: str | Fusion | None = None,
        batch_size: int = 64,
        filter: str | None = None,
    ) -> Fused:
        """Find the store rows of each question, without reading texts. Arguments as in `search`.

        Returns:
            Rows, scores, query vectors and ranks, each `(q, k)`.
        """
        questions = _at_least_one(questions)
        groups = self._fused(questions, k, num_query_vectors, fusion, batch_size, filter, lambda fused: fused)
        return Fused(*(np.concatenate(field) for field in zip(*groups, strict=True)))

    def _fused(
        self,
        questions: Iterable[str],
        k: int,
        num_query_vectors: int | Literal["auto"] | None,
        fusion: str | Fusion | None,
        batch_size: int,
        filter: str | None,
        finish: Callable[[Fused], Found],
    ) -> Iterator[Found]:
        """Check the arguments, then search the questions in groups and call `finish` on each result."""
        fuse = self.fusion(fusion)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if filter is not None:
            Filter(filter, self.store.metadata)

        def found(query_embeddings: np.ndarray) -> Found:
            rows, scores = search_lists(self.index, query_embeddings, k, filter)
            return finish(fuse(rows, scores, k, query_embeddings, self.store))

        encoded = (self.encode(group, num_query_vectors, batch_size) for group in _groups(questions))
        return _overlapped(encoded, found)

    def fusion(self, fusion: str | Fusion | None = None) -> Fusion:
        """Return the fusion function for a name or a function. Default: the one that fits the model's objective.

        Raises:
            ValueError: The name is unknown.
        """
        if fusion is None:
            return trained_fusion(self.model.config.objective, self.model.config.loss_temperature)
        if not isinstance(fusion, str):
            return fusion
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)} or a function, got {fusion!r}")
        return FUSIONS[fusion]

    def encode(
        self,
        questions: list[str],
        num_query_vectors: int | Literal["auto"] | None = None,
        batch_size: int = 64,
    ) -> np.ndarray:
        """Encode questions into the query vectors that `search` uses.

        Args:
            questions: At least one question.
            num_query_vectors: As in `search`.
            batch_size: Number of questions to encode at a time.

        Returns:
            `(q, m, dim)` unit vectors, float32. A vector that the model did not emit is all zeros.
        """
        anchors = None
        if self.encoder is not None and self.model.config.needs_question_vectors:
            anchors = self.encoder.encode_queries(questions, batch_size)
        query_embeddings = query_embeddings_of(
            self.model, num_query_vectors, texts=questions, input_vectors=anchors, batch_size=batch_size
        )
        return torch.as_tensor(query_embeddings).detach().to("cpu", torch.float32).numpy()

    def _hits(self, fused: Fused) -> list[list[Hit]]:
        rows = np.unique(fused.rows[fused.rows >= 0])
        return hits_of(fused, dict(zip(rows.tolist(), self.store.documents(rows), strict=True)))


def hits_of(fused: Fused, documents: Mapping[int, dict[str, Any]]) -> list[list[Hit]]:
    """Return the hits of each question, best first, without the padding.

    Args:
        fused: Fused lists of some questions.
        documents: Maps every row in `fused` to its document, as `DocumentStore.documents` returns it.
    """
    hits = []
    for fields in zip(*(field.tolist() for field in fused), strict=True):
        found = [place for place in zip(*fields, strict=True) if place[0] >= 0]
        hits.append([_hit(documents[row], score, by, at) for row, score, by, at in found])
    return hits


def open_model(
    model: str | os.PathLike[str] | AMERModel,
    device: str,
    revision: str | None = None,
    token: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> AMERModel:
    """Load a model from a folder or the Hub, or take an open one, and tell it where its document encoder is.

    A model that is loaded here in float32 has its LoRA merged into the decoder: the same vectors in less time.
    """
    if not isinstance(model, str | os.PathLike):
        if dtype is not None:
            raise ValueError("dtype applies only when the model is loaded here: pass the model's folder or name")
        locate_encoder(model)
        return model
    from modeling_amer import AMERModel

    options: dict[str, Any] = {} if dtype is None else {"dtype": chosen_dtype(dtype, device)}
    opened = AMERModel.from_pretrained(model, revision=revision, token=token, **options).to(device)
    if opened.merges_exactly:
        opened.merge_and_unload()
    locate_encoder(opened)
    return opened


def locate_encoder(model: AMERModel) -> None:
    """Tell a model that reads token vectors where the document encoder is on this machine."""
    encoder = model.config.document_encoder
    if model.config.token_vectors and encoder and model.document_encoder_path is None:
        where = resolve_model(encoder["name"])
        model.document_encoder_path = where if where != encoder["name"] else None


def _table_of_texts(texts: Sequence[str]) -> pa.Table:
    if isinstance(texts, str):
        raise TypeError(
            "documents is a single string: pass a list of strings, or a table with the columns id, title, text"
        )
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"document {position} is of type {type(text).__name__}: every document must be a string")
    return pa.table(
        {
            "id": pa.array([str(position) for position in range(len(texts))], pa.string()),
            "title": pa.array([""] * len(texts), pa.string()),
            "text": pa.array(list(texts), pa.string()),
        }
    )


def _at_least_one(questions: str | Sequence[str]) -> list[str]:
    from modeling_amer import as_questions

    questions = as_questions([questions] if isinstance(questions, str) else questions)
    if not questions:
        raise ValueError("no question was given: pass at least one")
    return questions


def _groups(questions: Iterable[str]) -> Iterator[list[str]]:
    from modeling_amer import as_questions

    questions, start = iter(questions), 0
    while group := list(islice(questions, SEARCHED_TOGETHER)):
        yield as_questions(group, start)
        start += len(group)


def _overlapped(encoded: Iterator[np.ndarray], search: Callable[[np.ndarray], Found]) -> Iterator[Found]:
    """Encode each group of questions in this thread while another thread searches the previous group."""
    with ThreadPoolExecutor(1, "amer-search") as background:
        searching: Future[Found] | None = None
        while True:
            try:
                query_embeddings = next(encoded, None)
            except Exception:
                if searching is not None:
                    yield searching.result()  # found before the error, so the caller still gets it
                raise
            before = searching
            searching = None if query_embeddings is None else background.submit(search, query_embeddings)
            if before is not None:
                yield before.result()
            if searching is None:
                return


def _hit(document: dict[str, Any], score: float, found_by: int, found_at: int) -> Hit:
    metadata = {name: value for name, value in document.items() if name not in ("id", "title", "text")}
    return Hit(document["id"], score, document["title"], document["text"], found_by, found_at, metadata)
