"""From dataset rows to a batch: shuffled targets, one document of each cluster, random negatives of the corpus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from amer.corpus.store import DocumentStore
from amer.trainer.losses import NO_LABEL
from modeling_amer import (
    AMERModel,
    QuestionEncoder,
    TokenVectors,
    longest_question,
    pad_tokens,
    part_labels,
    tokenize_queries,
    tokens_within,
)


class _Draw(NamedTuple):
    """What chance decides of one question."""

    targets: np.ndarray
    places: list[int]  # of each target its place among the question's clusters, and so among its spans
    negatives: np.ndarray
    sampling_uniforms: np.ndarray


class AMERCollator:
    """Batches the rows of a linked `RetrievalDataset`, whatever their numbers of targets.

    Each row's targets are shuffled (they have no order, but where spans give them one) and one document is drawn from
    each cluster; every document enters the candidates once. A question's draws follow from the seed, the epoch and its
    row in the dataset alone, so that the questions of a step bring the same documents however they are dealt to
    processes and data-loading workers, in a resumed run and in a second evaluation.

    The batch: what the model reads (`input_ids`, `attention_mask`, `prefix_ids` and/or `input_vectors`, `input_mask`),
    and
        - `candidates (n, dim)`: the targets and the random negatives, in the precision of the store;
        - `candidate_ids (n,)`: their rows in the store, ascending;
        - `target_ids (batch, m)`: the targets as rows of the store, -1 where a question has fewer;
        - `other_positives (pairs, 2)`: row of the batch, and a document that answers it without being its target;
        - `sampling_uniforms (batch, m)`: uniform in [0, 1), for scheduled sampling;
        - `query_index (batch,)`: the rows of the dataset;
        - of a dataset with spans, `ordered (batch,)`: the rows whose targets are in the order of their spans; and for
          a model of token vectors `part_mask (batch, m, length)`: the tokens in the span of each target.

    For a model that splits questions, the rows of the batch are the *parts* of the questions, each with one target.
    Of the whole questions it has the encoder's states, `input_words (questions, words, DEPTHS * dim)` and
    `words_mask (questions, words)`, `part_labels (questions, words)` (see `modeling_amer.part_labels`), `part_counts
    (questions,)`, and their texts as `questions`.

    Token vectors are the dataset's, where it has them (see `TokenCache`), or made by the encoder.

    Args:
        model: says what a question looks like: text, a vector, or both.
        store: the documents.
        num_random_negatives: documents of the whole store that each question brings; all questions share them.
        max_targets: at most so many targets a row, drawn anew each time; 1 is the Single-Query baseline (paper §5.2).
        seed: of all draws.
        encoder: reads the questions of a model of token vectors; the model's own by default.

    Raises:
        ValueError: a store of another encoder or size than the model's, or smaller than the negatives asked for.
    """

    def __init__(
        self,
        model: AMERModel,
        store: DocumentStore,
        num_random_negatives: int,
        max_targets: int | None = None,
        seed: int = 0,
        encoder: QuestionEncoder | None = None,
    ) -> None:
        config = model.config
        if config.document_dim != store.dim:
            raise ValueError(
                f"The model emits vectors of {config.document_dim}, the store holds vectors of {store.dim}."
            )
        if config.document_encoder is not None:
            store.check_encoder(config.document_encoder)
        if not 0 <= num_random_negatives <= len(store):
            raise ValueError(
                f"num_random_negatives must lie in 0 ... {len(store)} (the store), got {num_random_negatives}."
            )
        if max_targets is not None and max_targets < 1:
            raise ValueError(f"max_targets must be at least 1 or None, got {max_targets}.")
        self.tokenize: Callable[[list[str]], dict[str, torch.Tensor]] | None = None
        if config.prompt_template is not None:
            if model.tokenizer is None:
                raise ValueError("The model reads text and has no tokenizer: set model.tokenizer to its base's.")
            # Not the model's own method, which would carry the model into data-loading workers.
            longest = longest_question(model.tokenizer, config)
            self.tokenize = partial(tokenize_queries, model.tokenizer, config.prompt_template, max_length=longest)
        self.reads_vectors = config.reads_vectors
        self.splits_questions = config.splits_questions
        self.model: Any = model if config.token_vectors else None  # its encoder
        self.own_encoder = encoder
        self.store = store
        self.num_random_negatives = num_random_negatives
        self.max_targets = max_targets
        self.seed = seed

    @property
    def encoder(self) -> QuestionEncoder:
        """What reads the questions of a model of token vectors; the model's is only fetched when it is needed."""
        return self.own_encoder or self.model.document_encoder

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        draws = [self._draw(example) for example in examples]
        documents = np.unique(np.concatenate([part for draw in draws for part in (draw.targets, draw.negatives)]))
        batch = {
            "candidates": torch.from_numpy(self.store.vectors(documents).astype(self.store.dtype, copy=False)),
            "candidate_ids": torch.from_numpy(documents),
            "query_index": torch.tensor([example["index"] for example in examples]),
        }
        if self.splits_questions:
            return batch | self._parts(examples, draws)
        questions, tokens = self._read_questions(examples)
        batch |= questions
        answers = [{document for cluster in example["target_rows"] for document in cluster} for example in examples]
        batch |= _targets([draw.targets for draw in draws], [draw.sampling_uniforms for draw in draws], answers)
        if "spans" in examples[0]:
            spans = [
                [example["spans"][place] for place in draw.places] if example["spans"] else []
                for example, draw in zip(examples, draws, strict=True)
            ]
            batch["ordered"] = torch.tensor([bool(own) for own in spans])
            if tokens:
                batch["part_mask"] = _part_mask(tokens, spans, batch["target_ids"].shape[1])
        return batch

    def _parts(self, examples: list[dict[str, Any]], draws: list[_Draw]) -> dict[str, Any]:
        """What a model that splits questions learns from: the questions with their parts, and each part by itself."""
        for example, draw in zip(examples, draws, strict=True):
            if not len(draw.places) == len(example.get("spans") or []) == len(example["target_rows"]):
                raise ValueError(
                    f"A model that splits questions learns from their parts, and question {example['index']} does not "
                    "say where each of its targets is asked for: give a dataset with spans, such as `amer dataset "
                    "compound` makes, and no max_targets."
                )
        parts = [(example, place) for example, draw in zip(examples, draws, strict=True) for place in draw.places]
        vectors, vectors_mask = pad_tokens([part.vectors for part in self._part_tokens(parts)])
        tokens = self._question_tokens([example["query"] for example in examples])
        words, words_mask = pad_tokens([question.vectors for question in tokens])
        labels = [
            part_labels(example["spans"], question.offsets) for example, question in zip(examples, tokens, strict=True)
        ]
        return {
            "input_vectors": vectors,
            "input_mask": vectors_mask,
            **_targets(
                [target[None] for draw in draws for target in draw.targets],
                [uniform[None] for draw in draws for uniform in draw.sampling_uniforms],
                [{*example["target_rows"][place]} for example, place in parts],
            ),
            "input_words": words,
            "words_mask": words_mask,
            "part_labels": pad_sequence(labels, True, NO_LABEL, padding_side="left"),
            "part_counts": torch.tensor([len(draw.places) for draw in draws]),
            "questions": [example["query"] for example in examples],
        }

    def _question_tokens(self, questions: list[str]) -> list[TokenVectors]:
        """Of each whole question what its parts are looked for in."""
        found = {
            row: own
            for rows, tokens, _ in self.encoder.encode_depths(questions, len(questions))
            for row, own in zip(rows, tokens, strict=True)
        }
        return [found[row] for row in range(len(questions))]

    def _part_tokens(self, parts: list[tuple[dict[str, Any], int]]) -> list[TokenVectors]:
        """Of each part, read by itself: the dataset's token vectors, or what the encoder makes."""
        if "part_tokens" in parts[0][0]:
            return [example["part_tokens"][place] for example, place in parts]
        return self._tokens_of([{"query": _text(example, place)} for example, place in parts])

    def _tokens_of(self, examples: list[dict[str, Any]]) -> list[TokenVectors]:
        """Of each question: the dataset's, or what the encoder makes of the text."""
        if "tokens" in examples[0]:
            return [example["tokens"] for example in examples]
        if "query" not in examples[0]:
            raise ValueError("The model reads token vectors of texts, and the dataset's queries are vectors only.")
        return self.encoder.encode_tokens([example["query"] for example in examples], len(examples))

    def _draw(self, example: dict[str, Any]) -> _Draw:
        """One question's targets in random order, its share of the negatives, and its random numbers."""
        rng = np.random.default_rng([self.seed, example.get("epoch", 0), example["index"]])
        clusters, spans = example["target_rows"], example.get("spans")
        order = rng.permutation(len(clusters))[: self.max_targets].tolist()
        if spans:
            order.sort(key=spans.__getitem__)
        drawn: dict[int, int] = {}  # one document may answer for two clusters
        for i in order:
            drawn.setdefault(clusters[i][rng.integers(len(clusters[i]))], i)
        targets = np.array(list(drawn), dtype=np.int64)
        negatives = rng.choice(len(self.store), self.num_random_negatives, replace=False, shuffle=False)
        return _Draw(targets, list(drawn.values()), negatives, rng.random(len(targets), dtype=np.float32))

    def _read_questions(self, examples: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[TokenVectors]]:
        """What the model reads; and the tokens of each question, of a model that reads token vectors."""
        batch: dict[str, torch.Tensor] = {}
        if self.tokenize is not None:
            batch.update(self.tokenize([example["query"] for example in examples]))
        if self.model is not None:
            tokens = self._tokens_of(examples)
            batch["input_vectors"], batch["input_mask"] = pad_tokens([question.vectors for question in tokens])
            return batch, tokens
        if self.reads_vectors:
            if "query_vector" not in examples[0]:
                raise ValueError("The model reads query vectors and the dataset holds none; see with_input_vectors.")
            batch["input_vectors"] = torch.from_numpy(np.stack([example["query_vector"] for example in examples]))
        return batch, []


def _targets(
    targets: list[np.ndarray], uniforms: list[np.ndarray], answers: list[set[int]]
) -> dict[str, torch.Tensor]:
    """Targets, other answers and random numbers of each row of the batch."""
    others = [
        (row, document)
        for row, (own, known) in enumerate(zip(targets, answers, strict=True))
        for document in sorted(known.difference(own.tolist()))
    ]
    return {
        "target_ids": pad_sequence([torch.from_numpy(own) for own in targets], True, padding_value=-1),
        "other_positives": torch.tensor(others, dtype=torch.long).reshape(-1, 2),
        "sampling_uniforms": pad_sequence([torch.from_numpy(own) for own in uniforms], True),
    }


def _text(example: dict[str, Any], place: int) -> str:
    start, end = example["spans"][place]
    return example["query"][start:end]


def _part_mask(tokens: list[TokenVectors], spans: list[list[list[int]]], num_targets: int) -> torch.Tensor:
    """`(batch, num_targets, length)` bool, True for tokens that share a character with the target's span.

    Tokens stand on the right, as `pad_tokens` puts them.
    """
    length = max(len(question.offsets) for question in tokens)
    mask = torch.zeros(len(tokens), num_targets, length, dtype=torch.bool)
    for row, (question, own) in enumerate(zip(tokens, spans, strict=True)):
        for part, span in enumerate(own):
            mask[row, part, length - len(question.offsets) :] = tokens_within(span, question.offsets)
    return mask
