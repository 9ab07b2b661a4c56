"""The data of a study on disk: questions, corpus, document vectors, expanded questions. Each part is built once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console

from amer.baselines.bm25 import BM25
from amer.baselines.chat import Chat, EndpointChat, LocalChat
from amer.baselines.dense import DenseRetriever
from amer.baselines.expansion import Expanded, Rewritten, expand, rewrite
from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus
from amer.corpus.documents import open_documents
from amer.corpus.known_encoders import KNOWN_ENCODERS
from amer.data import RetrievalDataset, load_dataset_dir, save_dataset_dir
from amer.data.ambigqa import build_ambigqa
from amer.data.qampari import build_qampari
from amer.data.question_vectors import add_question_vectors
from amer.data.wikipedia import build_wikipedia
from amer.data.wordnet import LICENSE, build_wordnet
from amer.files import read_json, write_json
from amer.machine import chosen_device
from amer.offline import resolve_model
from amer.search import ExactIndex
from experiments.study import BM25_NAME, Study, StudyDataset, slug
from experiments.training_jobs import ROOT


def add_input_vectors(source: Path, encoder: DocumentEncoder, path: Path) -> None:
    """Copy a dataset and add the document encoder's vectors of the questions; written whole or not at all."""
    splits = add_question_vectors(load_dataset_dir(source), encoder)
    info = read_json(source / "dataset.json")
    save_dataset_dir(path, splits, {**info, "query_vectors": encoder.identity})
    if (source / LICENSE.name).is_file():
        shutil.copyfile(source / LICENSE.name, path / LICENSE.name)


@dataclass(frozen=True)
class StudyData:
    """One dataset of a study. Each part is made on first access and saved for later.

    Attributes:
        study: The study.
        name: Name of the dataset in the study.
        folder: Folder of all files.
        console: Shows what is being made.
    """

    study: Study
    name: str
    folder: Path
    console: Console

    @property
    def spec(self) -> StudyDataset:
        """The study's settings of the dataset."""
        return self.study.datasets[self.name]

    @cached_property
    def dataset(self) -> Path:
        """Folder of the questions, with their vectors by the study's encoder."""
        path = self.folder / "dataset"
        if not path.exists():
            self.console.print(f"[bold]{self.name}[/]: encoding the questions")
            add_input_vectors(self._built / "dataset", self.encoder, path)
        return path

    @cached_property
    def splits(self) -> dict[str, RetrievalDataset]:
        """The questions of `dataset`, linked to `store`."""
        return {name: split.link(self.store) for name, split in load_dataset_dir(self.dataset).items()}

    @cached_property
    def store(self) -> DocumentStore:
        """The corpus, encoded by the study's encoder."""
        return self.store_of(self.study.encoder)

    @cached_property
    def index(self) -> ExactIndex:
        """An exact index of `store`."""
        return self._index_of(self.store)

    @cached_property
    def encoder(self) -> DocumentEncoder:
        """The study's document encoder, loaded."""
        return self._encoder_of(self.study.encoder)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Queries, targets and documents of every split."""
        return read_json(self._built / "dataset" / "dataset.json")["splits"]

    def target_vectors(self, split: str, most: int) -> list[np.ndarray]:
        """One document vector per target of the first questions with several targets: `(m_i, dim)` each."""
        several = [clusters for clusters in self.splits[split].target_rows if len(clusters) > 1]
        return [self.store.vectors([cluster[0] for cluster in clusters]) for clusters in several[:most]]

    def store_of(self, encoder: str) -> DocumentStore:
        """The corpus, encoded by an encoder."""
        path = self._corpus / "stores" / slug(encoder)
        if (path / "store.json").is_file():
            return DocumentStore.open(path)
        self.console.print(f"[bold]{self.name}[/]: encoding the corpus with {encoder}")
        return encode_corpus(open_documents(self._documents), self._encoder_of(encoder), path)

    def retriever(self, name: str) -> BM25 | DenseRetriever:
        """An off-the-shelf retriever: BM25, or an encoder by its name."""
        if name != BM25_NAME:
            return DenseRetriever(self._encoder_of(name), self._index_of(self.store_of(name)))
        path, documents = self._corpus / "bm25", open_documents(self._documents)
        if path.exists():
            return BM25.open(path, documents)
        self.console.print(f"[bold]{self.name}[/]: indexing the corpus for BM25")
        return BM25.build(documents, path)

    def store_behind(self, retriever: str) -> DocumentStore:
        """The store of a retriever's document vectors; for BM25, which has none, that of the study's encoder."""
        return self.store if retriever == BM25_NAME else self.store_of(retriever)

    @cached_property
    def expanded_test(self) -> RetrievalDataset:
        """The test questions with appended keywords, and the encoder's vectors of the expanded questions."""
        queries = self.expanded.queries
        return replace(self.splits["test"], queries=queries, input_vectors=self.encoder.encode_queries(queries))

    @cached_property
    def expanded(self) -> Expanded:
        """The test questions with keywords from the study's chat model (paper A.7)."""
        expanded = expand(self.splits["test"].queries, self._chat, self.folder / "chat" / "keywords.jsonl")
        self._report("keywords", "answered in prose and stay unchanged", expanded.prose)
        return expanded

    @cached_property
    def rewritten(self) -> Rewritten:
        """The test questions with reformulations from the study's chat model, one fewer than AMER's vectors."""
        n = self.spec.num_query_vectors - 1
        rewritten = rewrite(self.splits["test"].queries, self._chat, n, self.folder / "chat" / "rewrites.jsonl")
        self._report("rewrites", "rewritten too few times and replace the missing rewrites", rewritten.short)
        return rewritten

    def _report(self, name: str, what: str, replies: list[tuple[int, str]]) -> None:
        """Print how many replies of the chat model were unusable, and save their question numbers."""
        test = self.splits["test"]
        self.console.print(f"[bold]{self.name}[/]: {name}: {len(replies)} of {len(test)} questions were {what}")
        unusable = [{"query_id": test.query_ids[number], "reply": reply} for number, reply in replies]
        write_json(self.folder / "chat" / f"{name}.json", {"questions": len(test), "unusable": unusable})

    @cached_property
    def _chat(self) -> Chat:
        model, most = self.study.chat, self.study.chat_max_new_tokens
        if self.study.chat_endpoint:
            return EndpointChat(self.study.chat_endpoint, model, max_new_tokens=most)
        return LocalChat(resolve_model(model), name=model, max_new_tokens=most)

    def _encoder_of(self, name: str) -> DocumentEncoder:
        prompts = {known: encoder.query_prompt for known, encoder in KNOWN_ENCODERS.items()} | self.study.query_prompts
        identity = {"name": name, "query_prompt": prompts.get(name, "")}
        return DocumentEncoder.from_identity(identity, trust_remote_code=name in self.study.trust_remote_code)

    def _index_of(self, store: DocumentStore) -> ExactIndex:
        return ExactIndex(store, chosen_device(self.study.search_device))

    @property
    def _corpus(self) -> Path:
        """Folder of the corpus, its stores and its BM25 index; AmbigQA and QAMPARI share that of Wikipedia."""
        return self.folder if self.spec.builder == "wordnet" else self.folder.parent / "wikipedia"

    @cached_property
    def _documents(self) -> Path:
        if self.spec.builder == "wordnet":
            return self._built / "documents.parquet"
        if self.study.wikipedia is None:
            raise ValueError(f"the corpus of {self.name} is Wikipedia: set `wikipedia` to the folder of its chunks")
        build_wikipedia(self._corpus, ROOT / self.study.wikipedia)
        return self._corpus / "documents"

    @cached_property
    def _built(self) -> Path:
        """The folder in which the builder wrote `dataset/`."""
        path, arguments = self.folder / "built", self.spec.arguments
        if (path / "dataset").exists():
            return path
        self.console.print(f"[bold]{self.name}[/]: building")
        if self.spec.builder == "wordnet":
            build_wordnet(path, **arguments)
        else:
            build = {"ambigqa": build_ambigqa, "qampari": build_qampari}[self.spec.builder]
            searches = [self.retriever(name) for name in self.spec.searches]
            build(path, open_documents(self._documents), searches, **arguments)
        return path
