"""From questions to documents: query vectors, one result list for each, one fused list."""

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
from amer.search.attribution import VectorWords, words_by_vector
from amer.search.fusion import FUSIONS, Fused, Fusion, trained_fusion
from amer.search.index import ExactIndex, Index, open_index
from amer.search.index.opening import COLLECTION
from amer.search.lists import search_lists

if TYPE_CHECKING:
    from modeling_amer import AMERModel

SEARCHED_TOGETHER = 256  # questions: an exact search reads the whole store once for all of them
Found = TypeVar("Found")


class Hit(NamedTuple):
    """One document.

    Attributes:
        id: of the document.
        score: what the documents are ranked by.
        title: of the document.
        text: of the document.
        found_by: the query vector that found it first, from 0.
        found_at: its rank there, from 0.
        metadata: the document's.
        part: the words of the question that the query vector stands for, where `search` was asked for them.
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
    """Answers questions with documents; safe to call from several threads if the model is.

        searcher = Searcher.from_pretrained("org/amer-qwen3-4b", store="org/wikipedia-store")
        hits = searcher.search("bank", k=10)[0]

    Attributes:
        model: has `encode_query` and an `AMERConfig`.
        index: searches the store.
        store: the index's, where the documents are.
        encoder: embeds the questions for a model that reads its vectors; a model of token vectors embeds them itself.
    """

    def __init__(
        self,
        model: Any,
        index: Index,
        encoder: DocumentEncoder | None = None,
    ) -> None:
        """Check that the model's query vectors and the store's documents lie in one space.

        Args:
            model: an `AMERModel`, or anything with its `encode_query` and configuration.
            index: an `ExactIndex`, `FaissIndex`, `MilvusIndex` or the like.
            encoder: the document encoder, for an anchored model that does not read token vectors.

        Raises:
            ValueError: another document encoder or dim than the store's; an anchored model without its encoder.
        """
        self.model = model
        self.index = index
        self.store: DocumentStore = index.store
        self.encoder = encoder
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # of documents that are nowhere else
        config = model.config
        self.store.check_encoder(config.document_encoder)
        if config.document_dim != self.store.dim:
            raise ValueError(f"the model's vectors have {config.document_dim} values, the store's {self.store.dim}")
        if _reads_encoder(config) and encoder is None:
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
        """Open a model, the document store it searches, the store's encoder if the model needs it, and the index.

        Args:
            model: a folder, a name on the Hub, or an opened model.
            store: a folder, a name on the Hub (`org/name` or `org/name@revision`), or an opened store.
            index: a FAISS index's folder, the address or file of Milvus, or an opened index of the store; exact search
                by default. See `open_index`.
            device: where model, encoder and exact search run; by default a GPU if there is one, else the CPU.
            trust_remote_code: run the code that the document encoder brings along.
            revision: commit, tag or branch of the model on the Hub.
            token: of the Hub; the one logged in with by default.
            collection: name of the collection in Milvus.
            timeout: seconds that a call to Milvus may take.
            dtype: what the model computes in: "float32", "bfloat16", or "auto", bfloat16 where the device computes it
                natively; by default as it was saved. Not with a model that is open.

        Raises:
            OSError: a model, store or index is not there, or is damaged; names it.
            ValueError: they do not belong together; an unknown precision, or one of a model that is open.
        """
        device = chosen_device(device)
        opened = open_model(model, device, revision, token, dtype)
        if not isinstance(store, DocumentStore):
            store = DocumentStore.open(pull_folder(store, token=token))
        if index is None or isinstance(index, str | os.PathLike):
            index = open_index(store, index, device, collection, timeout=timeout)
        encoder = None
        if _reads_encoder(opened.config):
            encoder = DocumentEncoder.from_identity(store.encoder, device, trust_remote_code)
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
        """Encode a small corpus now and search it: a first try with some lines of text.

        The vectors lie in a temporary folder that goes with the searcher. For a corpus to keep, call `encode_corpus`.

        Args:
            model: a folder, a name on the Hub, or an opened model.
            documents: texts, whose ids are then "0", "1", ...; or a table with the columns `id`, `title`, `text`.
            encoder: the model's document encoder; by default the one that its configuration names is opened.
            device: where model, encoder and search run; by default a GPU if there is one, else the CPU.
            trust_remote_code: run the code that the document encoder brings along.
            revision: commit, tag or branch of the model on the Hub.
            token: of the Hub; the one logged in with by default.

        Raises:
            OSError: the model or its encoder is not there.
            TypeError: a document is not a text.
            ValueError: no document, or a model that does not say which encoder it was trained for.
        """
        device = chosen_device(device)
        opened = open_model(model, device, revision, token)
        if encoder is None:
            if not opened.config.document_encoder:
                raise ValueError("the model's configuration names no document encoder: pass encoder=")
            encoder = DocumentEncoder.from_identity(opened.config.document_encoder, device, trust_remote_code)
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
        """The documents of each question, best first.

        Args:
            questions: one or several.
            k: documents a question, and length of the list searched for each query vector.
            num_query_vectors: m; "auto": as many as the model says, the default where it can choose; else the model's
                own number.
            fusion: how m lists become one: "round_robin", "reciprocal_rank", "max_score" or a function such as
                `functools.partial(mixture, temperature=...)`; by default what belongs to the objective the model was
                trained for, `round_robin` or `mixture`.
            batch_size: questions encoded at a time.
            filter: only documents whose metadata fulfil it, such as `year >= 1990` (see `amer.corpus.filters`).
            attribute: say in each hit's `part` which words its query vector stands for (see `parts`). It costs another
                pass of the model over each question.

        Returns:
            one list a question, of k hits (fewer only where fewer documents may be found).

        Raises:
            ValueError: no question, k < 1, an unknown fusion, a filter that does not fit the store, or query vectors
                that do not fit the index.
        """
        questions = _at_least_one(questions)
        answers = list(self.stream(questions, k, num_query_vectors, fusion, batch_size, filter))
        if not attribute:
            return answers
        named = []
        for question, hits in zip(questions, answers, strict=True):
            parts = self.parts(question, num_query_vectors)
            named.append([hit._replace(part=parts[hit.found_by].text) if parts else hit for hit in hits])
        return named

    def parts(self, question: str, num_query_vectors: int | Literal["auto"] | None = None) -> list[VectorWords]:
        """Which words of a question each of its query vectors stands for.

        Args:
            question: one question.
            num_query_vectors: as in `search`.

        Returns:
            one part for each query vector; none where the model neither splits questions nor has token anchors, and so
            cannot say.

        Raises:
            ValueError: an empty question.
        """
        m = None if num_query_vectors == "auto" else num_query_vectors
        if getattr(self.model.config, "splits_questions", False):
            (found,) = self.model.find_parts([question], m)
            return [VectorWords(part.text, [(part.start, part.end)]) for part in found]
        if getattr(self.model.config, "anchor", None) != "tokens":
            return []
        return words_by_vector(question, self.model.attribute(question, m))

    def stream(
        self,
        questions: Iterable[str],
        k: int = 10,
        num_query_vectors: int | Literal["auto"] | None = None,
        fusion: str | Fusion | None = None,
        batch_size: int = 64,
        filter: str | None = None,
    ) -> Iterator[list[Hit]]:
        """As `search`, for questions without end: some hundred are held at a time, and answers come in their order."""
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
        """The store rows of each question, without their texts; arguments as in `search`.

        Returns:
            `(q, k)` rows, scores and where each was found.
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
        """Check the arguments, then search group after group, and `finish` what was found."""
        fuse = self.fusion(fusion)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if filter is not None:
            Filter(filter, self.store.metadata)

        def found(query_embeddings: np.ndarray) -> Found:
            rows, scores = search_lists(self.index, query_embeddings, k, filter)
            return finish(fuse(rows, scores, k, query_embeddings, self.store))

        return _overlapped(_groups(questions), lambda group: self.encode(group, num_query_vectors, batch_size), found)

    def fusion(self, fusion: str | Fusion | None = None) -> Fusion:
        """How m lists become one, as `search` takes it: by its name, or what belongs to the model's objective.

        Raises:
            ValueError: an unknown name.
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
        """The query vectors that `search` searches with.

        Args:
            questions: at least one.
            num_query_vectors: as in `search`.
            batch_size: questions encoded at a time.

        Returns:
            `(q, m, dim)` unit vectors, float32; zeros in the place of vectors that the model did not emit.
        """
        config, anchors = self.model.config, None
        if self.encoder is not None and _reads_encoder(config):
            anchors = self.encoder.encode_queries(questions, batch_size)
        m = "auto" if num_query_vectors is None and getattr(config, "chooses_number", False) else num_query_vectors
        query_embeddings = self.model.encode_query(
            questions, input_vectors=anchors, num_query_vectors=m, batch_size=batch_size
        )
        if m == "auto":
            query_embeddings = query_embeddings.query_embeddings
        return torch.as_tensor(query_embeddings).detach().to("cpu", torch.float32).numpy()

    def _hits(self, fused: Fused) -> list[list[Hit]]:
        rows = np.unique(fused.rows[fused.rows >= 0])
        return hits_of(fused, dict(zip(rows.tolist(), self.store.documents(rows), strict=True)))


def hits_of(fused: Fused, documents: Mapping[int, dict[str, Any]]) -> list[list[Hit]]:
    """The hits of each question, best first; places that no document fills are left out.

    Args:
        fused: of some questions.
        documents: by their row, as `DocumentStore.documents` gives them; all rows of `fused` at least.
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
    """A model that finds its document encoder: loaded from a folder or the Hub on the device, or as it is given."""
    if not isinstance(model, str | os.PathLike):
        if dtype is not None:
            raise ValueError("dtype is of models that are loaded: pass the model's folder or name")
        locate_encoder(model)
        return model
    from modeling_amer import AMERModel

    options: dict[str, Any] = {} if dtype is None else {"dtype": chosen_dtype(dtype, device)}
    opened = AMERModel.from_pretrained(model, revision=revision, token=token, **options).to(device)
    locate_encoder(opened)
    return opened


def locate_encoder(model: AMERModel) -> None:
    """Tell a model that embeds its questions itself where the document encoder lies on this machine."""
    encoder = model.config.document_encoder
    if getattr(model.config, "token_vectors", False) and encoder and model.document_encoder_path is None:
        where = resolve_model(encoder["name"])
        model.document_encoder_path = where if where != encoder["name"] else None


def _reads_encoder(config: Any) -> bool:
    """Whether the model wants one vector of each question, from outside."""
    return config.anchored and not getattr(config, "token_vectors", False)


def _table_of_texts(texts: Sequence[str]) -> pa.Table:
    if isinstance(texts, str):
        raise TypeError("documents is one text: pass a list of texts, or a table with the columns id, title, text")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"document {position} is {type(text).__name__}, not a text")
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

    questions = iter(questions)
    while group := list(islice(questions, SEARCHED_TOGETHER)):
        yield as_questions(group)


def _overlapped(
    groups: Iterator[list[str]], encode: Callable[[list[str]], np.ndarray], search: Callable[[np.ndarray], Found]
) -> Iterator[Found]:
    """Encode each group here while another thread searches the one before."""
    with ThreadPoolExecutor(1, "amer-search") as background:
        searching: Future[Found] | None = None
        for group in groups:
            try:
                encoded = encode(group)
            except Exception:
                if searching is not None:
                    yield searching.result()  # found before the error, and still wanted
                raise
            before, searching = searching, background.submit(search, encoded)
            if before is not None:
                yield before.result()
        if searching is not None:
            yield searching.result()


def _hit(document: dict[str, Any], score: float, found_by: int, found_at: int) -> Hit:
    metadata = {name: value for name, value in document.items() if name not in ("id", "title", "text")}
    return Hit(document["id"], score, document["title"], document["text"], found_by, found_at, metadata)
