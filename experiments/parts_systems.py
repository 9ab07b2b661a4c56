"""Ways to search for the parts of a question, measured on the same questions, documents and machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from amer.baselines.averaging import average
from amer.baselines.chat import Chat
from amer.baselines.expansion import SPLIT_PROMPT, parts_of, split
from amer.baselines.mmr import mmr, tune_trade_off
from amer.baselines.oracle import oracle_query_embeddings
from amer.baselines.perturbation import perturb
from amer.baselines.splitting import RULE, TOLD, encode_parts, split_by_rule, split_by_spans
from amer.data import RetrievalDataset
from amer.evaluation import recall_at_k
from amer.machine import chosen_device
from amer.search import ExactIndex, open_model, round_robin, trained_fusion
from amer.search.fusion import Fusion
from amer.search.lists import search_lists
from amer.search.query_encoding import query_embeddings_of
from experiments.analysis.parts_numbers import Measured, deepest, set_metrics
from experiments.study_runs import CANDIDATES, SCALE
from modeling_amer import AMERModel, QuestionEncoder

ENCODER, ONE, AMER, FIXED = "encoder", "one vector", "AMER", "AMER, m = 4"
AVERAGED, PERTURBED, DEEPER = "AMER, averaged", "one vector, m perturbations", "one vector, to depth m x k"
LLM, MMR, ORACLE = "split by LLM", "one vector, MMR", "oracle centroid"
FIXED_M = 4
WARM_UP = 8  # questions to encode before the clock starts
ALONE = 20  # questions to encode one by one as well
Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Bench:
    """Measures systems, with their times, on the same questions and documents.

    Attributes:
        test: The questions, as texts, linked to the index's store.
        index: The index of the documents.
        encoder: The encoder of documents and questions.
        console: Shows which system is measured.
    """

    test: RetrievalDataset
    index: ExactIndex
    encoder: QuestionEncoder
    console: Console

    @cached_property
    def questions(self) -> list[str]:
        """The texts of the questions."""
        return list(self.test.queries or [])

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of parts of each question, `(q,)`: one per target."""
        return np.array([len(targets) for targets in self.test.targets])

    @cached_property
    def true_parts(self) -> list[list[str]] | None:
        """The texts of the parts, if the dataset has spans."""
        if self.test.spans is None:
            return None
        return [split_by_spans(*pair) for pair in zip(self.questions, self.test.spans, strict=True)]

    def encode(self, texts: list[str]) -> np.ndarray:
        """Encode texts with the document encoder: `(n, dim)`."""
        return self.encoder.encode(texts).numpy()

    def timed(self, way: Encode) -> tuple[np.ndarray, float]:
        """Encode all questions with `way`: vectors `(q, m, dim)` and seconds per question."""
        way(self.questions[:WARM_UP])
        started = time.perf_counter()
        query_embeddings = way(self.questions)
        return query_embeddings, (time.perf_counter() - started) / len(self.questions)

    def alone(self, way: Encode) -> dict[str, float]:
        """Median seconds to encode a single question with `way` and with the document encoder, measured in turns."""
        ways, seconds = (
            {"seconds": way, "encoder_seconds": self.encode},
            np.empty((2, min(ALONE, len(self.questions)))),
        )
        for place, question in enumerate(self.questions[:ALONE]):
            for row, own in enumerate(ways.values()):
                started = time.perf_counter()
                own([question])
                seconds[row, place] = time.perf_counter() - started
        return dict(zip(ways, np.median(seconds, axis=1).tolist(), strict=True))

    def search(self, vectors: np.ndarray, seconds: float | None, fusion: Fusion = round_robin, **own: Any) -> Measured:
        """Search with query vectors `(q, m, dim)`, where zeros are padding.

        `seconds` is the encoding time per question; `own` are further fields of `Measured`.
        """
        started = time.perf_counter()
        depth = deepest(self.counts)
        fused = fusion(*search_lists(self.index, vectors, depth), depth, vectors, self.index.store)
        if seconds is not None:
            seconds += (time.perf_counter() - started) / len(vectors)
        return Measured(set_metrics(fused.rows, self.test.linked_rows), searches_of(vectors), seconds, **own)


def searches_of(vectors: np.ndarray) -> np.ndarray:
    """The number of non-zero vectors of each question, `(q,)`, of `(q, m, dim)`."""
    return (vectors != 0).any(axis=-1).sum(axis=1)


def opened(folder: Path | str, index: ExactIndex) -> AMERModel:
    """Open a trained model with the document encoder of the index.

    Raises:
        ValueError: The model needs another document encoder.
    """
    model = open_model(folder, chosen_device())
    index.store.check_encoder(model.config.document_encoder)
    return model


def encoder_systems(bench: Bench) -> dict[str, list[Measured]]:
    """Measure the systems without training: the encoder on whole questions and on parts, and the upper bound."""
    rule = [split_by_rule(question) for question in bench.questions]
    ways: dict[str, tuple[Encode, list[list[str]] | None]] = {
        ENCODER: (lambda texts: bench.encode(texts)[:, None], None),
        RULE: (lambda texts: encode_parts([split_by_rule(text) for text in texts], bench.encode), rule),
    }
    if bench.true_parts is not None:
        known = dict(zip(bench.questions, bench.true_parts, strict=True))
        ways[TOLD] = (lambda texts: encode_parts([known[text] for text in texts], bench.encode), None)
    measured = {}
    for name, (way, parts) in ways.items():
        bench.console.print(name)
        chosen = None if parts is None else np.array([len(own) for own in parts])
        measured[name] = [bench.search(*bench.timed(way), parts=parts, chosen=chosen)]
    oracle = oracle_query_embeddings(bench.test.linked_rows, bench.index.store, 1, seed=0)
    return {**measured, ORACLE: [bench.search(oracle, None)]}


def chat_system(bench: Bench, chat: Chat, replies: Path) -> tuple[Measured, dict[str, float]]:
    """Measure questions split by a chat model; its time is measured anew, even if the replies are cached."""
    bench.console.print(f"{LLM}: {chat.name}")
    parts = split(bench.questions, chat, replies)
    started = time.perf_counter()
    chat.reply([SPLIT_PROMPT.replace("[Question]", question) for question in bench.questions[:ALONE]])
    asking = (time.perf_counter() - started) / min(ALONE, len(bench.questions))
    known = dict(zip(bench.questions, parts, strict=True))
    vectors, seconds = bench.timed(lambda texts: encode_parts([known[text] for text in texts], bench.encode))
    chosen = np.array([len(own) for own in parts])

    def way(texts: list[str]) -> np.ndarray:
        replied = chat.reply([SPLIT_PROMPT.replace("[Question]", text) for text in texts])
        split_texts = [parts_of(reply) or [text] for reply, text in zip(replied, texts, strict=True)]
        return encode_parts(split_texts, bench.encode)

    return bench.search(vectors, asking + seconds, parts=parts, chosen=chosen), bench.alone(way)


def model_system(bench: Bench, model: AMERModel, m: int | None = None) -> tuple[Measured, np.ndarray, Encode]:
    """Measure a trained model with m vectors; if m is None, with its own number.

    Returns:
        The results, the query vectors `(q, m, dim)`, and the encoding function.
    """
    auto = m is None and model.config.chooses_number

    def way(texts: list[str]) -> np.ndarray:
        return query_embeddings_of(model, m, texts=texts).numpy()

    vectors, seconds = bench.timed(way)
    splits = auto and model.config.splits_questions
    measured = bench.search(
        vectors,
        seconds,
        trained_fusion(model.config.objective, model.config.loss_temperature),
        parts=[[part.text for part in own] for own in model.find_parts(bench.questions)] if splits else None,
        chosen=searches_of(vectors) if auto else None,
    )
    return measured, vectors, way


def amer_systems(bench: Bench, model: AMERModel) -> tuple[dict[str, Measured], Encode]:
    """Measure AMER with its own and with a fixed number of vectors, and averaged; return the encoding function too."""
    own, vectors, way = model_system(bench, model)
    fixed, _, _ = model_system(bench, model, FIXED_M)
    return {AMER: own, FIXED: fixed, AVERAGED: bench.search(average(vectors), own.seconds)}, way


def one_vector_systems(bench: Bench, model: AMERModel, seed: int) -> tuple[dict[str, Measured], Encode]:
    """Measure the single-vector model and its variants without training; return the encoding function too."""
    own, vectors, way = model_system(bench, model)
    counts, most = bench.counts, int(bench.counts.max())
    perturbed = perturb(vectors[:, 0], most, SCALE, seed)
    perturbed[np.arange(most) >= counts[:, None]] = 0
    rows, scores = bench.index.search(vectors, max(CANDIDATES, most * deepest(counts)))
    deeper = set_metrics(rows[:, 0], bench.test.linked_rows, stretch=counts)
    made = {
        ONE: own,
        PERTURBED: bench.search(perturbed, own.seconds),
        DEEPER: Measured(deeper, own.searches, own.seconds),
        MMR: _reranked(bench, rows[:, 0, :CANDIDATES], scores[:, 0, :CANDIDATES], own),
    }
    return made, way


def _reranked(bench: Bench, rows: np.ndarray, scores: np.ndarray, own: Measured) -> Measured:
    """Maximal marginal relevance; choosing lambda on the test questions themselves favours it."""
    store, targets = bench.index.store, bench.test.linked_rows
    trade_off, _ = tune_trade_off(
        rows, scores, store, 10, lambda chosen: float(recall_at_k(chosen, targets, 10).mean())
    )
    started = time.perf_counter()
    reranked, _ = mmr(rows, scores, store, deepest(bench.counts), trade_off)
    seconds = (time.perf_counter() - started) / len(rows)
    return Measured(set_metrics(reranked, targets), own.searches, (own.seconds or 0.0) + seconds)


def trained_systems(
    bench: Bench, amer: Sequence[str], one: Sequence[str], others: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[Measured]], dict[str, dict[str, float]]]:
    """Measure the systems with trained models, with one model in memory at a time.

    Args:
        bench: The bench that measures them.
        amer: Folders of AMER, one per seed.
        one: Folders of the single-vector model with the same training, one per seed.
        others: Name -> folders of other models.

    Returns:
        System -> results, one per seed; and the times of single questions for the systems with their own encoding.
    """

    def alone_system(name: str) -> Callable[[AMERModel, int], tuple[dict[str, Measured], Encode]]:
        def measure(model: AMERModel, _: int) -> tuple[dict[str, Measured], Encode]:
            own, _, way = model_system(bench, model)
            return {name: own}, way

        return measure

    measures = {
        ONE: (one, lambda model, seed: one_vector_systems(bench, model, seed)),
        AMER: (amer, lambda model, _: amer_systems(bench, model)),
        **{name: (folders, alone_system(name)) for name, folders in others.items()},
    }
    systems: dict[str, list[Measured]] = {}
    alone = {}
    for name, (folders, measure) in measures.items():
        for seed, folder in enumerate(folders):
            bench.console.print(f"{name}: {folder}")
            made, way = measure(opened(folder, bench.index), seed)
            for own, measured in made.items():
                systems.setdefault(own, []).append(measured)
            if seed == 0:
                alone[name] = bench.alone(way)
    return systems, alone
