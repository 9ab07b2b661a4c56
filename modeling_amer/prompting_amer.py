"""From a question to token ids: one prompt and one tokenising function, for training and for inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

MAX_QUERY_LENGTH = 1_024  # tokens of a question; one of 300 kB would take 90 GB of attention
INSTRUCTION = "Retrieve a diverse set of documents that covers multiple aspect of the query."

logger = logging.get_logger(__name__)


def default_prompt_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The paper's instruction inside the base model's chat template, rendered once with every special token in it.

    A tokenizer without a chat template gets the plain instruction, behind its BOS token if it has one.
    """
    if tokenizer.chat_template is None:
        return f"{tokenizer.bos_token or ''}{INSTRUCTION}\nQuery: {{query}}\n"
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "{query}"}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def tokenize_queries(
    tokenizer: PreTrainedTokenizerBase, prompt_template: str, texts: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Token ids of the prompted questions, split where they begin to differ.

    The prompt up to the question is the same for all, so it is returned once, to be read once for the whole batch.
    The template carries its own special tokens, so the tokenizer adds none: no second BOS. Of a question the first
    `MAX_QUERY_LENGTH` tokens are read; a warning counts those that have more.

    Returns:
        `input_ids (batch, length)` and `attention_mask (batch, length)`, padded on the left, and `prefix_ids
        (1, prefix)`; the full prompt of row i is `prefix_ids[0]` followed by the unmasked ids of row i.

    Raises:
        TypeError: a question that is not a string.
        ValueError: no question at all, or one that is empty.
    """
    if len(texts) == 0:
        raise ValueError("No questions were given; pass at least one.")
    check_texts(texts)
    head, tail = prompt_template.split("{query}")
    prefix = head.rstrip(" ")  # byte-level vocabularies keep a word and the space before it in one token
    space = head[len(prefix) :]
    rows = tokenizer([f"{space}{text}{tail}" for text in shortened(tokenizer, texts)], add_special_tokens=False)
    rows = rows["input_ids"]
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    encoded = {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=0, padding_side="left"),
        "attention_mask": pad_sequence(
            [torch.ones_like(row) for row in ids], batch_first=True, padding_value=0, padding_side="left"
        ),
    }
    if prefix:
        prefix_ids = tokenizer(prefix, add_special_tokens=False)["input_ids"]
        encoded["prefix_ids"] = torch.tensor([prefix_ids], dtype=torch.long)
    return encoded


def shortened(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """The questions, each up to the end of its last token that is read."""
    own, long = list(texts), [place for place, text in enumerate(texts) if len(text) > MAX_QUERY_LENGTH]
    cut = 0
    for place in long:  # a token has at least one character
        read = own[place][: 64 * MAX_QUERY_LENGTH]
        ids = tokenizer(read, add_special_tokens=False)["input_ids"]
        if len(ids) > MAX_QUERY_LENGTH:
            own[place] = str(tokenizer.decode(ids[:MAX_QUERY_LENGTH], clean_up_tokenization_spaces=False))
            cut += 1
    if cut:
        logger.warning(f"{cut} of {len(own)} questions have over {MAX_QUERY_LENGTH:,} tokens, the rest is not read")
    return own


def check_texts(texts: Sequence[str]) -> None:
    """TypeError for a question that is not a string, ValueError for one that is empty; names its position."""
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Question {position} is a {type(text).__name__}; questions are strings.")
        if not text.strip():
            raise ValueError(f"Question {position} is empty ({text!r}); a question needs at least one token.")
