"""Turn dataset rows into a batch: shuffled targets, one document per cluster, random negatives of the corpus."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
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
    """The random draws for one question."""

    targets: np.ndarray
    places: list[int]  # index of each target's cluster, which is also the index of its span
    negatives: np.ndarray
    sampling_uniforms: np.ndarray


class _EncoderOf:
    """The document encoder of a model, loaded on first use. A copy for a data-loading worker leaves the model out."""

    def __init__(self, model: AMERModel) -> None:
        self._model: AMERModel | None = model
        self._load = model.document_encoder_loader()

    def __call__(self) -> QuestionEncoder:
        return self._encoder if self._model is None else self._model.document_encoder

    @cached_property
    def _encoder(self) -> QuestionEncoder:
        return self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {"_model": None, "_load": self._load if self._model is None else self._model.document_encoder_loader()}


class AMERCollator:
    """Collates rows of a linked `RetrievalDataset` into batches; rows may have different numbers of targets.

    The collator shuffles each row's targets (which have no order, unless spans give them one) and draws one document
    from each cluster. Every document enters the candidates once. The draws for a question depend only on the seed, the
    epoch and the question's row in the dataset. The documents of a step therefore do not depend on the number of
    processes and data-loading workers, and they are the same in a resumed run and in a repeated evaluation.

    A batch holds the model's inputs (`input_ids`, `attention_mask`, `prefix_ids` and/or `input_vectors`,
    `input_mask`), and
        - `candidates (n, dim)`: the targets and the random negatives, in the precision of the store;
        - `candidate_ids (n,)`: their rows in the store, ascending;
        - `target_ids (batch, m)`: the targets as rows of the store, -1 after a question's last target;
        - `other_positives (pairs, 2)`: row of the batch, and a document that answers it but is not its target;
        - `sampling_uniforms (batch, m)`: uniform in [0, 1), for scheduled sampling;
        - `query_index (batch,)`: the rows of the dataset;
        - for a dataset with spans, `ordered (batch,)`: True for rows whose targets are in the order of their spans;
          and, for a model that reads token vectors, `part_mask (batch, m, length)`: the tokens in each target's span.

    For a model that splits questions, the rows of the batch are the *parts* of the questions, each with one target.
    The batch also holds the encoder's states of the whole questions, `input_words (questions, words, DEPTHS * dim)`
    and `words_mask (questions, words)`; `part_labels (questions, words)` (see `modeling_amer.part_labels`);
    `part_counts (questions,)`; and the texts as `questions`.

    Token vectors come from the dataset if it has them (see `TokenCache`), else from the encoder.

    Args:
        model: The model to train; it determines whether a question is text, a vector, or both.
        store: The documents.
        num_random_negatives: Documents of the whole store to draw per question; all questions share them.
        max_targets: Maximum number of targets per row, drawn for each use. 1: Single-Query baseline (paper §5.2).
        seed: Seed of all draws.

    Raises:
        ValueError: The store has another encoder or vector size than the model, or fewer documents than
            `num_random_negatives`.
    """

    def __init__(
        self,
        model: AMERModel,
        store: DocumentStore,
        num_random_negatives: int,
        max_targets: int | None = None,
        seed: int = 0,
    ) -> None:
        config = model.config
        if config.document_dim != store.dim:
            raise ValueError(
                f"The model emits vectors of {config.document_dim}, the store holds vectors of {store.dim}: use the "
                "store that the model was built for."
            )
        if config.document_encoder is not None:
            store.check_encoder(config.document_encoder)
        if not 0 <= num_random_negatives <= len(store):
            raise ValueError(
                f"num_random_negatives must be between 0 and {len(store)} (the size of the store), got "
                f"{num_random_negatives}."
            )
        if max_targets is not None and max_targets < 1:
            raise ValueError(f"max_targets must be at least 1 or None, got {max_targets}.")
        self.tokenize: Callable[[list[str]], dict[str, torch.Tensor]] | None = None
        if config.prompt_template is not None:
            if model.tokenizer is None:
                raise ValueError(
                    "The model reads text but has no tokenizer: set model.tokenizer to the tokenizer of its base."
                )
            # A partial, because the model's own method would copy the model into data-loading workers.
            longest = longest_question(model.tokenizer, config)
            self.tokenize = partial(tokenize_queries, model.tokenizer, config.prompt_template, max_length=longest)
        self.reads_vectors = config.reads_vectors
        self.splits_questions = config.splits_questions
        self.reads_tokens = config.token_vectors
        self.encoder: Any = _EncoderOf(model) if self.reads_tokens else None
        self.store = store
        self.num_random_negatives = num_random_negatives
        self.max_targets = max_targets
        self.seed = seed

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
        """Training inputs of a model that splits questions: whole questions with labels, and each part by itself."""
        for example, draw in zip(examples, draws, strict=True):
            if not len(draw.places) == len(example.get("spans") or []) == len(example["target_rows"]):
                raise ValueError(
                    f"A model that splits questions learns from their parts, but question {example['index']} does not "
                    "have a span for each target: use a dataset with spans, such as one made by `amer dataset "
                    "compound`, and leave out max_targets."
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
        """The encoder's states of each whole question, from which the model finds the parts."""
        found = {
            row: own
            for rows, tokens, _ in self.encoder().encode_depths(questions)
            for row, own in zip(rows, tokens, strict=True)
        }
        return [found[row] for row in range(len(questions))]

    def _part_tokens(self, parts: list[tuple[dict[str, Any], int]]) -> list[TokenVectors]:
        """Token vectors of each part read by itself, from the dataset or the encoder."""
        if "part_tokens" in parts[0][0]:
            return [example["part_tokens"][place] for example, place in parts]
        return self._tokens_of([{"query": _text(example, place)} for example, place in parts])

    def _tokens_of(self, examples: list[dict[str, Any]]) -> list[TokenVectors]:
        """Token vectors of each question, from the dataset or the encoder."""
        if "tokens" in examples[0]:
            return [example["tokens"] for example in examples]
        if "query" not in examples[0]:
            raise ValueError(
                "The model reads token vectors of texts, but the dataset's queries are vectors only: use a dataset "
                "with texts."
            )
        return self.encoder().encode_tokens([example["query"] for example in examples], len(examples))

    def _draw(self, example: dict[str, Any]) -> _Draw:
        """Draw one question's targets in random order, its random negatives, and its random numbers."""
        rng = np.random.default_rng([self.seed, example.get("epoch", 0), example["index"]])
        clusters, spans = example["target_rows"], example.get("spans")
        order = rng.permutation(len(clusters))[: self.max_targets].tolist()
        if spans:
            order.sort(key=spans.__getitem__)
        drawn: dict[int, int] = {}  # one document may be in two clusters
        for i in order:
            drawn.setdefault(clusters[i][rng.integers(len(clusters[i]))], i)
        targets = np.array(list(drawn), dtype=np.int64)
        negatives = rng.choice(len(self.store), self.num_random_negatives, replace=False, shuffle=False)
        return _Draw(targets, list(drawn.values()), negatives, rng.random(len(targets), dtype=np.float32))

    def _read_questions(self, examples: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[TokenVectors]]:
        """The model's inputs, and for a model that reads token vectors the tokens of each question."""
        batch: dict[str, torch.Tensor] = {}
        if self.tokenize is not None:
            batch.update(self.tokenize([example["query"] for example in examples]))
        if self.reads_tokens:
            tokens = self._tokens_of(examples)
            batch["input_vectors"], batch["input_mask"] = pad_tokens([question.vectors for question in tokens])
            return batch, tokens
        if self.reads_vectors:
            if "query_vector" not in examples[0]:
                raise ValueError(
                    "The model reads query vectors, but the dataset has none: add them with "
                    "RetrievalDataset.with_input_vectors."
                )
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

    The padding is on the left, as in `pad_tokens`.
    """
    length = max(len(question.offsets) for question in tokens)
    mask = torch.zeros(len(tokens), num_targets, length, dtype=torch.bool)
    for row, (question, own) in enumerate(zip(tokens, spans, strict=True)):
        for part, span in enumerate(own):
            mask[row, part, length - len(question.offsets) :] = tokens_within(span, question.offsets)
    return mask
