"""Token anchors: each query vector starts from its own weighted mean of the document encoder's token vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class WordWeight(NamedTuple):
    """How much of a query vector's anchor comes from one word of the question.

    Attributes:
        word: as it stands in the question.
        start: its first character.
        end: the character after its last.
        weight: between 0 and 1. A vector's weights add up to 1 with what lies on special tokens and the prompt.
    """

    word: str
    start: int
    end: int
    weight: float


class TokenAnchor(nn.Module):
    """`anchor_j = sum_t a_jt v_t`, the weights `a_j` a softmax over the question's tokens.

    It is taken of `<A h_j, B v_t + C h_t> / sqrt(size)`: h_j is the decoder's state at step j, v_t a token's vector
    and h_t the decoder's state at it, which has read what came before, and can tell the second part from the first.
    A starts at zero: untrained, the weights are even, and every anchor is the mean of the token vectors, which is the
    vector of an encoder that pools by the mean. Computed in float32, whatever the decoder's precision.

    Args:
        hidden_size: of the decoder.
        dim: of the token vectors.
        size: of the space in which decoder and tokens meet.
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
            hidden: `(batch, m, hidden)` states of the decoder.
            tokens: `(batch, length, dim)` token vectors, whose mean has length 1.
            mask: `(batch, length)`, 0 on padding.
            states: `(batch, length, hidden)` of the decoder at the tokens.

        Returns:
            anchors `(batch, m, dim)` and weights `(batch, m, length)`, which sum to 1 and are 0 on padding.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            tokens = tokens.float()
            scale = tokens.shape[-1] ** 0.5  # components about 1, as those of the hidden states
            keys = self.key(tokens * scale) + self.state_key(states.float())
            logits = self.query(hidden.float()) @ keys.transpose(1, 2) / self.query.out_features**0.5
            weights = logits.masked_fill(mask[:, None] == 0, -torch.inf).softmax(dim=-1)
            return weights @ tokens, weights


def word_weights(question: str, weights: torch.Tensor, offsets: torch.Tensor, words: torch.Tensor) -> list[WordWeight]:
    """Add up one query vector's weights on the tokens of each word.

    Args:
        question: the text.
        weights: `(length,)`.
        offsets: `(length, 2)` characters of each token.
        words: `(length,)` word of each token, -1 for none.

    Returns:
        the words that the encoder read, in the order of the question.
    """
    found = []
    for number in words[words >= 0].unique().tolist():
        own = words == number
        start, end = int(offsets[own, 0].min()), int(offsets[own, 1].max())
        found.append(WordWeight(question[start:end], start, end, float(weights[own].sum())))
    return sorted(found, key=lambda word: word.start)
