"""Turn questions into token ids, with the same prompt and function in training and at inference."""

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
_TOKENIZING = threading.Lock()  # threads share a tokenizer's setting for special tokens


def default_prompt_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The paper's instruction in the base model's chat template, with all special tokens.

    Without a chat template, it is the plain instruction after the BOS token, if there is one.
    """
    if tokenizer.chat_template is None:
        return f"{tokenizer.bos_token or ''}{INSTRUCTION}\nQuery: {{query}}\n"
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "{query}"}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def tokenize_queries(
    tokenizer: PreTrainedTokenizerBase, prompt_template: str, texts: Sequence[str], max_length: int | None = None
) -> dict[str, torch.Tensor]:
    """Token ids of the prompted questions, separated into the shared prefix and the rest.

    The prompt up to the question is the same for all questions, so it is returned once and read once per batch. The
    template has its own special tokens, so the tokenizer adds none (no second BOS). Special tokens in a question are
    read as plain text, so no question can close the prompt.

    Args:
        tokenizer: The decoder's tokenizer.
        prompt_template: The prompt, with `{query}` once.
        texts: The questions.
        max_length: Maximum number of tokens of a question; longer questions are truncated, with one warning.

    Returns:
        `input_ids (batch, length)` and `attention_mask (batch, length)`, padded on the left, and `prefix_ids
        (1, prefix)`. The full prompt of row i is `prefix_ids[0]` followed by the unmasked ids of row i.

    Raises:
        TypeError: A question is not a string.
        ValueError: There are no questions, or one is empty or not valid Unicode.
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
    """The number of tokens a model reads of a question: `max_query_length`, or less if the decoder has less room.

    Raises:
        ValueError: The prompt and the query vectors leave no room for a question.
    """
    positions = positions_of(config)
    if positions is None or config.prompt_template is None:
        return config.max_query_length
    prompt = tokenizer(config.prompt_template.replace("{query}", ""), add_special_tokens=False)["input_ids"]
    room = positions - len(prompt) - config.max_query_vectors - config.reads_vectors
    if room < 1:
        raise ValueError(
            f"The decoder has {positions} positions. The prompt takes {len(prompt)} and the query vectors up to "
            f"{config.max_query_vectors}: no question fits. Shorten prompt_template, or use another base."
        )
    return min(config.max_query_length, room)


def positions_of(config: AMERConfig) -> int | None:
    """The decoder's number of positions; None if it has no limit."""
    positions = getattr(config.text_config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def _plain_part(tokenizer: PreTrainedTokenizerBase, tail: str) -> tuple[str, str]:
    """The prompt after the question, in two parts: up to its first special token, and the rest.

    Most vocabularies merge the first part with the question's last word, so both are tokenised together.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    end = min((tail.index(token) for token in special if token in tail), default=len(tail))
    return tail[:end], tail[end:]


def _shortened(rows: list[list[int]], max_length: int, plain_ids: list[int]) -> list[list[int]]:
    """Truncate token ids to `max_length` plus the plain part; log one warning with the number of such questions."""
    most = max_length + len(plain_ids)
    longer = [row for row in rows if len(row) > most]
    if longer:
        logger.warning(
            f"{len(longer)} of {len(rows)} questions have more than {max_length} tokens: only the first {max_length} "
            "are read. The configuration's max_query_length and the positions of the decoder set this limit."
        )
    return [row if len(row) <= most else row[:max_length] + plain_ids for row in rows]


def as_questions(texts: Iterable[str], start: int = 0) -> list[str]:
    """The questions of any sequence (list, tuple, array, column, series) as a list, in order of position.

    Args:
        texts: The questions.
        start: Position of the first one, for messages.

    Raises:
        TypeError: The questions have no order, or one is not a string; the message names its position.
        ValueError: A question is empty or not valid Unicode; the message names its position.
    """
    if isinstance(texts, Set | Mapping | bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"Questions must be a sequence of strings, got {type(texts).__name__}.")
    if (dimensions := getattr(texts, "ndim", 1)) != 1:
        raise TypeError(
            f"Questions must be one column of strings, got {type(texts).__name__} of {dimensions} dimensions."
        )
    questions = list(texts)
    check_texts(questions, start)
    return questions


def check_texts(texts: Sequence[str], start: int = 0) -> None:
    """Refuse questions that cannot be read.

    Args:
        texts: The questions.
        start: Position of the first one, for messages.

    Raises:
        TypeError: A question is not a string; the message names its position.
        ValueError: A question is empty, or holds half of a character ("\\ud83d"); the message names its position.
    """
    for position, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise TypeError(f"Question {position} is a {type(text).__name__}; questions must be strings.")
        if not text.strip():
            raise ValueError(f"Question {position} is empty ({text!r}); a question must hold at least one word.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Question {position} is not valid Unicode ({error}): {text[:60]!r}. Read its source as UTF-8."
            ) from error
