"""From a question to token ids: one prompt and one tokenising function, for training and for inference."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence, Set

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .configuration_amer import AMERConfig

logger = logging.get_logger(__name__)

INSTRUCTION = "Retrieve a diverse set of documents that covers multiple aspect of the query."
_TOKENIZING = threading.Lock()  # a tokenizer keeps whether it reads special tokens, for all threads


def default_prompt_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The paper's instruction inside the base model's chat template, rendered once with every special token in it.

    A tokenizer without a chat template gets the plain instruction, behind its BOS token if it has one.
    """
    if tokenizer.chat_template is None:
        return f"{tokenizer.bos_token or ''}{INSTRUCTION}\nQuery: {{query}}\n"
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "{query}"}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def tokenize_queries(
    tokenizer: PreTrainedTokenizerBase, prompt_template: str, texts: Sequence[str], max_length: int | None = None
) -> dict[str, torch.Tensor]:
    """Token ids of the prompted questions, split where they begin to differ.

    The prompt up to the question is the same for all, so it is returned once, to be read once for the whole batch.
    The template carries its own special tokens, so the tokenizer adds none: no second BOS. A question has none: what
    spells one in it is read as text, so that no question can close the prompt.

    Args:
        tokenizer: the decoder's.
        prompt_template: holds `{query}` once.
        texts: the questions.
        max_length: tokens of a question that are read; what is longer loses its end, with one warning for all.

    Returns:
        `input_ids (batch, length)` and `attention_mask (batch, length)`, padded on the left, and `prefix_ids
        (1, prefix)`; the full prompt of row i is `prefix_ids[0]` followed by the unmasked ids of row i.

    Raises:
        TypeError: a question that is not a string.
        ValueError: no question at all, or one that is empty or no Unicode text.
    """
    if len(texts) == 0:
        raise ValueError("No questions were given; pass at least one.")
    check_texts(texts)
    head, tail = prompt_template.split("{query}")
    prefix = head.rstrip(" ")  # byte-level vocabularies keep a word and the space before it in one token
    space = head[len(prefix) :]
    plain, closing = _plain_part(tokenizer, tail)
    with _TOKENIZING:
        rows = tokenizer(
            [f"{space}{text}{plain}" for text in texts], add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        closing_ids, prefix_ids, plain_ids = (
            tokenizer(part, add_special_tokens=False, split_special_tokens=False)["input_ids"] if part else []
            for part in (closing, prefix, plain)
        )
    if max_length is not None:
        rows = _shortened(rows, max_length, plain_ids)
    ids = [torch.tensor([*row, *closing_ids], dtype=torch.long) for row in rows]
    encoded = {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=0, padding_side="left"),
        "attention_mask": pad_sequence(
            [torch.ones_like(row) for row in ids], batch_first=True, padding_value=0, padding_side="left"
        ),
    }
    if prefix:
        encoded["prefix_ids"] = torch.tensor([prefix_ids], dtype=torch.long)
    return encoded


def longest_question(tokenizer: PreTrainedTokenizerBase, config: AMERConfig) -> int:
    """Tokens of a question that a model reads: `max_query_length`, or the positions that its prompt leaves if fewer.

    Raises:
        ValueError: the prompt and the query vectors leave none.
    """
    positions = positions_of(config)
    if positions is None or config.prompt_template is None:
        return config.max_query_length
    prompt = tokenizer(config.prompt_template.replace("{query}", ""), add_special_tokens=False)["input_ids"]
    room = positions - len(prompt) - config.max_query_vectors - config.reads_vectors
    if room < 1:
        raise ValueError(
            f"The decoder has {positions} positions, of which the prompt takes {len(prompt)} and query vectors up to "
            f"{config.max_query_vectors}: no question fits. Shorten prompt_template, or take another base."
        )
    return min(config.max_query_length, room)


def positions_of(config: AMERConfig) -> int | None:
    """Positions that the decoder was built for; None where it has no such bound."""
    positions = getattr(config.text_config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def _plain_part(tokenizer: PreTrainedTokenizerBase, tail: str) -> tuple[str, str]:
    """The prompt behind the question, up to its first special token and from there on.

    What comes before belongs to the question's last word for most vocabularies, and is tokenised with it.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    end = min((tail.index(token) for token in special if token in tail), default=len(tail))
    return tail[:end], tail[end:]


def _shortened(rows: list[list[int]], max_length: int, plain_ids: list[int]) -> list[list[int]]:
    """Token ids of at most `max_length` and those of the plain part; says once how many questions lost their end."""
    most = max_length + len(plain_ids)
    longer = [row for row in rows if len(row) > most]
    if longer:
        logger.warning(
            f"{len(longer)} of {len(rows)} questions have more than {max_length} tokens: the first {max_length} are "
            "read. The configuration's max_query_length and the positions of the decoder set this."
        )
    return [row if len(row) <= most else row[:max_length] + plain_ids for row in rows]


def as_questions(texts: Iterable[str]) -> list[str]:
    """Questions by their position, whatever they are numbered by: a list, a tuple, an array, a column, a series.

    Raises:
        TypeError: they have no order, or one of them is not a string; names its position.
        ValueError: one is empty, or no Unicode text; names its position.
    """
    if isinstance(texts, Set | Mapping | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"Questions are a sequence of strings, not {type(texts).__name__}.")
    if (dimensions := getattr(texts, "ndim", 1)) != 1:
        raise TypeError(f"Questions are one column of strings, not {type(texts).__name__} of {dimensions} dimensions.")
    questions = list(texts)
    check_texts(questions)
    return questions


def check_texts(texts: Sequence[str]) -> None:
    """Refuse questions that cannot be read.

    Raises:
        TypeError: a question that is not a string; names its position.
        ValueError: one that is empty, or holds half of a character ("\\ud83d"); names its position.
    """
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Question {position} is a {type(text).__name__}; questions are strings.")
        if not text.strip():
            raise ValueError(f"Question {position} is empty ({text!r}); a question needs at least one token.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Question {position} is no Unicode text ({error}): {text[:60]!r}. Read its source as UTF-8."
            ) from error
