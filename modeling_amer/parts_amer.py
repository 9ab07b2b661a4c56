"""Questions of several parts: where each part begins and ends, and a vector for each that is read by itself.

The model reads the whole question and labels its tokens. Then it reads every part alone, as a question of its own: its
vector carries nothing of what the other parts say, as the encoder's token vectors of the whole question do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from transformers.utils import logging

from .anchors_amer import WordWeight, word_weights
from .configuration_amer import AMERConfig
from .encoder_amer import QuestionEncoder, TokenVectors, like_lengths, pad_tokens

GROUP = 4096  # questions whose token vectors are held at a time
NUM_LABELS = 3
OUTSIDE, BEGINS, INSIDE = range(NUM_LABELS)
"""What a token is to the parts of its question: the classes of the model's `part_logits`."""


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
        tokens = model.document_encoder.encode_tokens(questions, batch_size)
        vectors, labels = _read(model, tokens, batch_size)
        known = dict(zip(questions, vectors, strict=True))  # a question of one part may be that part
        parts = [
            find_parts(question, own, token.offsets, token.words, most)
            for question, own, token in zip(questions, labels, tokens, strict=True)
        ]
        if anew := sorted({part.text for own in parts for part in own} - known.keys()):
            vectors, _ = _read(model, model.document_encoder.encode_tokens(anew, batch_size), batch_size)
            known.update(zip(anew, vectors, strict=True))
        all_parts += parts
        all_vectors += [torch.stack([known[part.text] for part in own]) for own in parts]
    return all_parts, all_vectors


def attribute_parts(model: SplittingModel, question: str, most: int) -> list[list[WordWeight]]:
    """For each part of the question the weights of its words in the anchor of its vector."""
    ((parts, *_), _) = encode_parts(model, [question], most, 1)
    found = []
    for part in parts:
        (tokens,) = model.document_encoder.encode_tokens([part.text])
        weights = torch.full((len(tokens.vectors),), 1 / len(tokens.vectors))
        if model.config.anchor == "tokens":
            output = model(input_vectors=tokens.vectors[None].to(model.device))
            weights = output.attention[0, 0].cpu()
        words = word_weights(part.text, weights, tokens.offsets, tokens.words)
        found.append([word._replace(start=word.start + part.start, end=word.end + part.start) for word in words])
    return found


def _read(
    model: SplittingModel, tokens: Sequence[TokenVectors], batch_size: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of each text its vector `(dim,)` and the labels of its tokens `(length,)`."""
    vectors: dict[int, torch.Tensor] = {}
    labels: dict[int, torch.Tensor] = {}
    for rows in like_lengths([len(text.vectors) for text in tokens], batch_size, model.device):
        padded, mask = pad_tokens([tokens[row].vectors for row in rows])
        output = model(input_vectors=padded.to(model.device), input_mask=mask.to(model.device))
        predicted = output.part_logits.argmax(dim=-1).cpu()
        for place, row in enumerate(rows):
            vectors[row] = output.query_embeddings[place, 0].cpu()
            labels[row] = predicted[place, -len(tokens[row].vectors) :]
    return [vectors[row] for row in range(len(tokens))], [labels[row] for row in range(len(tokens))]
