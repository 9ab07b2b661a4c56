"""Token anchors: each query vector starts from its own weighted mean of the document encoder's token vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class WordWeight(NamedTuple):
    """How much of a query vector's anchor comes from one word of the question.

    Attributes:
        word: The word, as the question spells it.
        start: Index of its first character.
        end: Index after its last character.
        weight: Between 0 and 1. A vector's weights add up to 1 together with those of special tokens and the prompt.
    """

    word: str
    start: int
    end: int
    weight: float


class TokenAnchor(nn.Module):
    """Attention over the question's tokens: `anchor_j = sum_t a_jt v_t`.

    The weights `a_j` are the softmax over t of `<A h_j, B v_t + C h_t> / sqrt(size)`. Here h_j is the decoder's state
    at step j, v_t the vector of token t, and h_t the decoder's state at that token. h_t has read all earlier tokens,
    so it can tell the second part of a question from the first. A starts at zero. An untrained model therefore weighs
    all tokens equally, and every anchor is the mean of the token vectors: the vector of an encoder with mean pooling.
    The layer computes in float32, whatever the decoder's precision.

    Args:
        hidden_size: Hidden size of the decoder.
        dim: Size of the token vectors.
        size: Size of the space in which decoder states and token vectors are compared.
    """

    def __init__(self, hidden_size: int, dim: int, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, size, bias=False)
        self.key = nn.Linear(dim, size, bias=False)
        self.state_key = nn.Linear(hidden_size, size, bias=False)

    def forward(
        self, hidden: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weigh the tokens for each step.

        Args:
            hidden: `(batch, m, hidden)` states of the decoder at the steps.
            tokens: `(batch, length, dim)` token vectors, whose mean has length 1.
            mask: `(batch, length)`, 0 on padding.
            states: `(batch, length, hidden)` states of the decoder at the tokens.

        Returns:
            The anchors `(batch, m, dim)` and the weights `(batch, m, length)`. The weights of a step sum to 1 and are
            0 on padding.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            tokens = tokens.float()
            scale = tokens.shape[-1] ** 0.5  # components of about 1, like those of the hidden states
            keys = self.key(tokens * scale) + self.state_key(states.float())
            logits = self.query(hidden.float()) @ keys.transpose(1, 2) / self.query.out_features**0.5
            weights = logits.masked_fill(mask[:, None] == 0, -torch.inf).softmax(dim=-1)
            return weights @ tokens, weights


def word_weights(question: str, weights: torch.Tensor, offsets: torch.Tensor, words: torch.Tensor) -> list[WordWeight]:
    """Add up one query vector's weights on the tokens of each word.

    Args:
        question: The text.
        weights: `(length,)` weight of each token.
        offsets: `(length, 2)` characters of each token.
        words: `(length,)` number of each token's word, -1 for tokens outside words.

    Returns:
        The words that the encoder read, in the order of the question.
    """
    found = []
    for number in words[words >= 0].unique().tolist():
        own = words == number
        start, end = int(offsets[own, 0].min()), int(offsets[own, 1].max())
        found.append(WordWeight(question[start:end], start, end, float(weights[own].sum())))
    return sorted(found, key=lambda word: word.start)
