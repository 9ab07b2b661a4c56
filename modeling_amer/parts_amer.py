"""Split a question into its parts, and compute one vector per part.

The encoder reads the whole question, and a small transformer labels its words from the states of several layers. Then
encoder and decoder read each part by itself, as a separate question. A part's vector therefore holds nothing of the
other parts, unlike the token vectors of the whole question. At the end, a share of the whole question's vector adds
the context that the parts have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from math import inf
from typing import Any, NamedTuple, Protocol
from unicodedata import category

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel
from transformers.utils import logging

from .anchors_amer import WordWeight, word_weights
from .configuration_amer import AMERConfig
from .encoder_amer import DEPTHS, QuestionEncoder, TokenVectors, like_lengths, pad_tokens

GROUP = 4096  # number of questions whose parts are read together
WORD_DROPOUT = 0.1  # share of words hidden from the labeller in training
PUNCTUATION = frozenset("PS")  # the first letters of the Unicode categories of punctuation and symbols
NUM_LABELS = 3
OUTSIDE, BEGINS, INSIDE = range(NUM_LABELS)
"""The labels of a token: the classes of `part_logits`."""
BEFORE = {OUTSIDE: (OUTSIDE, BEGINS, INSIDE), BEGINS: (OUTSIDE,), INSIDE: (BEGINS, INSIDE)}
"""The labels allowed for the previous word. At least one word or mark therefore separates two parts."""


class PartLabeller(nn.Module):
    """Labels each token of a question: begins a part, inside a part, or outside.

    It is a transformer with the decoder's shape, but every token sees the whole question. It reads the encoder's
    states at several depths, because the first layers know the words and the middle ones the grammar, while the last
    ones, trained for meaning, hide both.
    """

    def __init__(self, config: AMERConfig) -> None:
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.word_dropout = nn.Dropout1d(WORD_DROPOUT)
        self.input_projection = nn.Linear(DEPTHS * config.document_dim, hidden_size)
        self.backbone = AutoModel.from_config(deepcopy(config.text_config))
        self.output_projection = nn.Linear(hidden_size, NUM_LABELS)

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits `(questions, words, 3)` of the labels.

        Args:
            words: `(questions, words, DEPTHS * dim)` states from `QuestionEncoder.encode_depths`, padded on the left.
            mask: `(questions, words)`, 0 on padding. Default: all ones.

        Raises:
            ValueError: The states have another size.
        """
        if words.shape[-1] != self.input_projection.in_features:
            raise ValueError(
                f"The words have {words.shape[-1]} entries each, expected {self.input_projection.in_features}: pass "
                "the states from QuestionEncoder.encode_depths, of the encoder that the model was trained with."
            )
        mask = torch.ones_like(words[..., 0], dtype=torch.long) if mask is None else mask
        inputs = self.input_projection(self.word_dropout(words.to(self.input_projection.weight.dtype)))
        hidden = mask[:, None, None] == 0
        seen = inputs.new_zeros(hidden.shape).masked_fill(hidden, torch.finfo(inputs.dtype).min)
        states = self.backbone(
            inputs_embeds=inputs,
            attention_mask=seen.expand(-1, -1, mask.shape[1], -1),
            position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state
        return self.output_projection(states)


class SplittingModel(Protocol):
    """The parts of `AMERModel` that this file uses. It cannot import the class: the model imports this file."""

    config: AMERConfig

    @property
    def device(self) -> torch.device: ...

    @property
    def document_encoder(self) -> QuestionEncoder: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Part(NamedTuple):
    """A part of a question, with its own query vector.

    Attributes:
        text: The part's text in the question.
        start: Index of its first character.
        end: Index after its last character.
    """

    text: str
    start: int
    end: int


def find_parts(
    question: str, logits: torch.Tensor, offsets: torch.Tensor, words: torch.Tensor, most: int
) -> list[Part]:
    """Split a question according to the model's labels; never inside a word.

    Args:
        question: The text.
        logits: `(length, 3)` logits of `OUTSIDE`, `BEGINS` and `INSIDE` for each token. The first token of a word
            decides.
        offsets: `(length, 2)` characters of each token.
        words: `(length,)` number of each token's word, -1 for tokens outside words.
        most: Maximum number of parts. The last one extends over all further parts.

    Returns:
        At least one part, in the order of the question. If no word is in a part, the whole question is the part.
    """
    pieces = _words_and_marks(question, offsets.tolist(), words.tolist())
    labels = likeliest_labels(logits.log_softmax(dim=-1)[[token for token, _, _ in pieces]].tolist())
    spans: list[list[int]] = []
    for (_, start, end), label in zip(pieces, labels, strict=True):
        if label == BEGINS:
            spans.append([start, end])
        elif label == INSIDE:
            spans[-1][1] = end
    if not spans:
        return [Part(question, 0, len(question))]
    kept = [*spans[: most - 1], [spans[most - 1][0], spans[-1][1]]] if len(spans) > most else spans
    return [Part(question[start:end], start, end) for start, end in kept]


def likeliest_labels(log_probabilities: Sequence[Sequence[float]]) -> list[int]:
    """The most likely sequence of labels among those that `BEFORE` allows (Viterbi).

    A new part after "and" is then likely only if a part is likely to begin and the "and" is likely to be outside.
    """
    best, steps = [0.0, -inf, -inf], []  # start as after a word outside
    for own in log_probabilities:
        step = [max(BEFORE[label], key=best.__getitem__) for label in range(NUM_LABELS)]
        best = [best[before] + score for before, score in zip(step, own, strict=True)]
        steps.append(step)
    labels = [max(range(NUM_LABELS), key=best.__getitem__)]
    for step in reversed(steps):
        labels.append(step[labels[-1]])
    return labels[-2::-1]


def _words_and_marks(question: str, offsets: list[list[int]], words: list[int]) -> list[tuple[int, int, int]]:
    """First token, first character and end character of each word and of each mark beside it."""
    found: list[tuple[int, int, int]] = []
    word_before = -1
    for token, ((start, end), word) in enumerate(zip(offsets, words, strict=True)):
        if word >= 0:
            if word == word_before and not _touches_mark(question, start):
                found[-1] = (*found[-1][:2], end)
            else:
                found.append((token, start, end))
        word_before = word
    return found


def _touches_mark(question: str, start: int) -> bool:
    """Whether a punctuation mark or a symbol stands before or after the place between two tokens."""
    return any(category(character)[0] in PUNCTUATION for character in question[max(start - 1, 0) : start + 1])


def tokens_within(span: Sequence[int], offsets: torch.Tensor) -> torch.Tensor:
    """`(length,)` bool, True for tokens that share a character with the span [first, last); `offsets (length, 2)`."""
    first, last = span
    start, end = offsets.T
    return (start < last) & (end > first) & (start < end)


def part_labels(spans: list[list[int]], offsets: torch.Tensor) -> torch.Tensor:
    """The labels `(length,)` of tokens with `offsets (length, 2)`, given the parts of the question.

    Args:
        spans: For each part, its first character and the index after its last.
        offsets: Characters of each token; an empty range for special tokens, which are outside.
    """
    labels = torch.full_like(offsets[:, 0], OUTSIDE)
    for span in spans:
        within = tokens_within(span, offsets)
        labels[within] = INSIDE
        labels[within.nonzero()[:1, 0]] = BEGINS
    return labels


def encode_parts(
    model: SplittingModel, texts: Sequence[str], most: int, batch_size: int, show_progress_bar: bool = False
) -> tuple[list[list[Part]], list[torch.Tensor]]:
    """The parts of each question, at most `most`, and their unit vectors `(parts, dim)`, float32, on the CPU."""
    all_parts: list[list[Part]] = []
    all_vectors: list[torch.Tensor] = []
    for start in logging.tqdm(range(0, len(texts), GROUP), desc="Encoding", disable=not show_progress_bar):
        parts, whole = _split(model, texts[start : start + GROUP], most, batch_size)
        part_texts = sorted({part.text for own in parts for part in own})
        known = dict(zip(part_texts, _read(model, part_texts, batch_size), strict=True))
        for own, question in zip(parts, whole, strict=True):
            vectors = torch.stack([known[part.text] for part in own])
            several = len(own) > 1  # a single part needs no context
            all_vectors.append(normalize(vectors + several * model.config.context_weight * question, dim=-1))
        all_parts += parts
    return all_parts, all_vectors


def split(model: SplittingModel, questions: Sequence[str], most: int, batch_size: int) -> list[list[Part]]:
    """The parts of each question, at most `most`."""
    return _split(model, questions, most, batch_size)[0]


def _split(
    model: SplittingModel, questions: Sequence[str], most: int, batch_size: int
) -> tuple[list[list[Part]], torch.Tensor]:
    """The parts of each question, and the encoder's vectors `(questions, dim)` of the questions."""
    found: dict[int, list[Part]] = {}
    whole = torch.empty(len(questions), model.config.document_dim)
    for rows, tokens, vectors in model.document_encoder.encode_depths(questions, batch_size):
        padded, mask = pad_tokens([question.vectors for question in tokens])
        logits = model(input_words=padded.to(model.device), words_mask=mask.to(model.device)).part_logits.cpu()
        whole[rows] = vectors
        for row, own, text in zip(rows, logits, tokens, strict=True):
            found[row] = find_parts(questions[row], own[-len(text.words) :], text.offsets, text.words, most)
    return [found[row] for row in range(len(questions))], whole


def attribute_parts(model: SplittingModel, question: str, most: int) -> list[list[WordWeight]]:
    """For each part of the question, the weights of its words in the anchor of its vector."""
    found = []
    for part in split(model, [question], most, 1)[0]:
        (tokens,) = model.document_encoder.encode_tokens([part.text])
        weights = torch.full((len(tokens.vectors),), 1 / len(tokens.vectors))
        if model.config.anchor == "tokens":
            output = model(input_vectors=tokens.vectors[None].to(model.device))
            weights = output.attention[0, 0].cpu()
        words = word_weights(part.text, weights, tokens.offsets, tokens.words)
        found.append([word._replace(start=word.start + part.start, end=word.end + part.start) for word in words])
    return found


def _read(model: SplittingModel, texts: Sequence[str], batch_size: int) -> list[torch.Tensor]:
    """The vector `(dim,)` of each text."""
    tokens = model.document_encoder.encode_tokens(texts, batch_size)
    vectors: dict[int, torch.Tensor] = {}
    for rows, padded, mask in _batches(model, tokens, batch_size):
        output = model(input_vectors=padded, input_mask=mask)
        vectors.update(zip(rows, output.query_embeddings[:, 0].cpu(), strict=True))
    return [vectors[row] for row in range(len(tokens))]


def _batches(
    model: SplittingModel, tokens: Sequence[TokenVectors], batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Rows, padded vectors `(batch, length, dim)` and mask of each batch of similar lengths, on the model's device."""
    for rows in like_lengths([len(text.vectors) for text in tokens], batch_size, model.device):
        padded, mask = pad_tokens([tokens[row].vectors for row in rows])
        yield rows, padded.to(model.device), mask.to(model.device)
