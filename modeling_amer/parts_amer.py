"""Questions of several parts: where each part begins and ends, and a vector for each that is read by itself.

A small transformer labels the words of the whole question. Then encoder and decoder read every part alone, as a
question of its own: its vector carries nothing of what the other parts say, as the token vectors of the whole question
do. What the parts share is added at the end, as a share of the whole question's vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel
from transformers.utils import logging

from .anchors_amer import WordWeight, word_weights
from .configuration_amer import AMERConfig
from .encoder_amer import QuestionEncoder, TokenVectors, like_lengths, pad_tokens

GROUP = 4096  # questions whose token vectors are held at a time
WORD_DROPOUT = 0.1  # words that the labeller does not get to see in training
NUM_LABELS = 3
OUTSIDE, BEGINS, INSIDE = range(NUM_LABELS)
"""What a token is to the parts of its question: the classes of `part_logits`."""


class PartLabeller(nn.Module):
    """Says of each token of a question whether it begins a part, is inside one, or outside.

    A transformer of the decoder's shape, in which every token sees the whole question. It reads the encoder's input
    embeddings: to tell the parts it must know the words, and the encoder's last states, made for meaning, hide them.
    """

    def __init__(self, config: AMERConfig) -> None:
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.word_dropout = nn.Dropout1d(WORD_DROPOUT)
        self.input_projection = nn.Linear(config.document_dim, hidden_size)
        self.backbone = AutoModel.from_config(deepcopy(config.text_config))
        self.output_projection = nn.Linear(hidden_size, NUM_LABELS)

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits `(questions, words, 3)` of the labels.

        Args:
            words: `(questions, words, dim)` input embeddings, padded on the left.
            mask: `(questions, words)`, 0 on padding; all ones if not given.

        Raises:
            ValueError: embeddings of another size.
        """
        if words.shape[-1] != self.input_projection.in_features:
            raise ValueError(
                f"The input embeddings have {words.shape[-1]} entries, expected {self.input_projection.in_features}: "
                "a document encoder whose embeddings are smaller than its vectors cannot be used to split questions."
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
    """What is asked here of an [`AMERModel`], which this file does not import, for the model imports it."""

    config: AMERConfig

    @property
    def device(self) -> torch.device: ...

    @property
    def document_encoder(self) -> QuestionEncoder: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Part(NamedTuple):
    """A part of a question, which has a query vector of its own.

    Attributes:
        text: as it stands in the question.
        start: its first character.
        end: the character after its last.
    """

    text: str
    start: int
    end: int


def find_parts(
    question: str, labels: torch.Tensor, offsets: torch.Tensor, words: torch.Tensor, most: int
) -> list[Part]:
    """Cut a question where the model says that parts begin and end; never inside a word.

    Args:
        question: the text.
        labels: `(length,)` of `OUTSIDE`, `BEGINS` and `INSIDE`, one for each token. A word has that of its first.
        offsets: `(length, 2)` characters of each token.
        words: `(length,)` word of each token, -1 for none.
        most: parts. The last of them reaches to the end of those that are too many.

    Returns:
        at least one part, in the order of the question: the whole question where no word is in a part.
    """
    spans: list[list[int]] = []
    inside, word_before = False, -1
    for (start, end), word, label in zip(offsets.tolist(), words.tolist(), labels.tolist(), strict=True):
        if word < 0:
            continue
        if word != word_before:
            begins = label == BEGINS or (label == INSIDE and not inside)
            inside, word_before = label != OUTSIDE, word
            if begins:
                spans.append([start, end])
        if inside:
            spans[-1][1] = end
    if not spans:
        return [Part(question, 0, len(question))]
    kept = [*spans[: most - 1], [spans[most - 1][0], spans[-1][1]]] if len(spans) > most else spans
    return [Part(question[start:end], start, end) for start, end in kept]


def tokens_within(span: Sequence[int], offsets: torch.Tensor) -> torch.Tensor:
    """`(length,)` bool, which tokens with `offsets (length, 2)` share a character with the span [first, last)."""
    first, last = span
    start, end = offsets.T
    return (start < last) & (end > first) & (start < end)


def part_labels(spans: list[list[int]], offsets: torch.Tensor) -> torch.Tensor:
    """The labels `(length,)` of tokens with `offsets (length, 2)`, where the parts of the question are known.

    Args:
        spans: of each part, its first character and the one after its last.
        offsets: empty for special tokens, which are outside.
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
        questions = texts[start : start + GROUP]
        parts = split(model, questions, most, batch_size)
        part_texts = sorted({part.text for own in parts for part in own})
        known = dict(zip(part_texts, _read(model, part_texts, batch_size), strict=True))
        vectors = [torch.stack([known[part.text] for part in own]) for own in parts]
        all_parts += parts
        all_vectors += _with_context(model, questions, vectors, batch_size)
    return all_parts, all_vectors


def split(model: SplittingModel, questions: Sequence[str], most: int, batch_size: int) -> list[list[Part]]:
    """The parts of each question, at most `most`."""
    tokens = model.document_encoder.embed_tokens(questions)
    found: dict[int, list[Part]] = {}
    for rows, padded, mask in _batches(model, tokens, batch_size):
        labels = model(input_words=padded, words_mask=mask).part_logits.argmax(dim=-1).cpu()
        for row, own in zip(rows, labels, strict=True):
            text = tokens[row]
            found[row] = find_parts(questions[row], own[-len(text.words) :], text.offsets, text.words, most)
    return [found[row] for row in range(len(questions))]


def _with_context(
    model: SplittingModel, questions: Sequence[str], vectors: Sequence[torch.Tensor], batch_size: int
) -> list[torch.Tensor]:
    """Unit vectors `(parts, dim)` of each question; those of several parts with their share of the whole."""
    several = sorted({question for question, own in zip(questions, vectors, strict=True) if len(own) > 1})
    if not several or not model.config.context_weight:
        return list(vectors)
    shares = model.config.context_weight * model.document_encoder.encode(several, batch_size)
    added = dict(zip(several, shares, strict=True))
    return [
        normalize(own + added[question], dim=-1) if len(own) > 1 else own
        for question, own in zip(questions, vectors, strict=True)
    ]


def attribute_parts(model: SplittingModel, question: str, most: int) -> list[list[WordWeight]]:
    """For each part of the question the weights of its words in the anchor of its vector."""
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
    """Of each text its vector `(dim,)`."""
    tokens = model.document_encoder.encode_tokens(texts, batch_size)
    vectors: dict[int, torch.Tensor] = {}
    for rows, padded, mask in _batches(model, tokens, batch_size):
        output = model(input_vectors=padded, input_mask=mask)
        vectors.update(zip(rows, output.query_embeddings[:, 0].cpu(), strict=True))
    return [vectors[row] for row in range(len(tokens))]


def _batches(
    model: SplittingModel, tokens: Sequence[TokenVectors], batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Rows, padded vectors `(batch, length, dim)` and mask of texts of about one length, on the model's device."""
    for rows in like_lengths([len(text.vectors) for text in tokens], batch_size, model.device):
        padded, mask = pad_tokens([tokens[row].vectors for row in rows])
        yield rows, padded.to(model.device), mask.to(model.device)
