"""The frozen document encoder of an anchored model, with plain transformers: a question as one vector, or as tokens.

It reads what sentence-transformers saved beside the weights (`modules.json`, the pooling, the length), so that both
give the same vectors. It is never trained and never saved with the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import layer_norm, normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from .prompting_amer import as_questions

POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}  # and their names before 6.0
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")
BATCH_SIZE = 64
DEPTHS = 5  # at which the states of a question are read, where its parts are looked for
CPU_PADDING = 128  # tokens: MiniLM reads as many in the time that a batch takes whatever is in it


class TokenVectors(NamedTuple):
    """The tokens of one question, with a vector each.

    Attributes:
        vectors: `(length, dim)` float32. Of `encode_tokens`: the direction of their mean is the encoder's vector, and
            its length is 1. Of `encode_depths`: states of several layers side by side, with entries of about 1.
        offsets: `(length, 2)` int64, the characters of the question each token stands for, [start, end); empty for
            special tokens and those of the prompt.
        words: `(length,)` int64, which word of the question each token is part of, -1 where it is part of none.
    """

    vectors: torch.Tensor
    offsets: torch.Tensor
    words: torch.Tensor


class QuestionEncoder:
    """Embeds questions with the document encoder that an [`AMERConfig`] names.

    Attributes:
        name: of the encoder, for messages.
        model: its transformer, in evaluation mode.
        tokenizer: its tokenizer.
        pooling: "mean", "cls" or "lasttoken".
        max_length: tokens it reads of a text.
        prompt: put before every question.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        max_length: int = 512,
        prompt: str = "",
    ) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_length = max_length
        self.prompt = prompt

    @classmethod
    def from_identity(
        cls,
        identity: Mapping[str, Any],
        path: str | os.PathLike[str] | None = None,
        dtype: torch.dtype | None = None,
        **hub_options: Any,
    ) -> QuestionEncoder:
        """Load the encoder that a model or a store names; code of its own is never run.

        Args:
            identity: `name`, and where they are not the defaults `revision` and `query_prompt`.
            path: the folder of its weights, on a machine that does not reach the Hub.
            dtype: what its transformer computes in; None is what the weights are saved in. Vectors are float32.
            hub_options: `token`, `cache_dir`, `local_files_only`, ... of transformers.

        Raises:
            OSError: it is not there.
            ValueError: it is more than a transformer with pooling, or pools in another way than `POOLINGS`.
        """
        name = identity["name"]
        where, revision = (name, identity.get("revision")) if path is None else (str(path), None)
        place = {**hub_options, "revision": revision}
        modules = _read_json(where, "modules.json", place) or []
        folders = {module["type"].rpartition(".")[2]: module.get("path", "") for module in modules}
        if extra := [kind for kind in folders if kind not in PLAIN_MODULES]:
            raise ValueError(
                f"The document encoder {name} has modules that plain transformers cannot run ({', '.join(extra)}): "
                "pass input_vectors made with sentence-transformers."
            )
        options = {**place, "subfolder": folders.get("Transformer", "")}
        length = _read_json(where, "sentence_bert_config.json", options) or {}
        try:
            model = AutoModel.from_pretrained(where, dtype=dtype or "auto", trust_remote_code=False, **options)
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
        except (OSError, ValueError) as error:
            raise OSError(
                f"This model reads the vectors of its document encoder, {name!r}, which could not be loaded: make it "
                f"reachable, or give a folder that holds it as document_encoder_path. ({error})"
            ) from error
        if not tokenizer.is_fast:
            raise ValueError(f"The tokenizer of {name} cannot say which characters a token stands for.")
        pooling = _read_json(where, "config.json", {**place, "subfolder": folders["Pooling"]}) if modules else None
        prompt = identity.get("query_prompt") or ""
        return cls(name, model, tokenizer, _pooling(name, pooling, prompt), _length(length, model, tokenizer), prompt)

    def check_pools_the_mean(self) -> None:
        """ValueError if the encoder's vector is not the mean of its token vectors, as token anchors need."""
        if self.pooling != "mean":
            raise ValueError(
                f"The document encoder {self.name} pools by {self.pooling!r}: its vector is not the mean of its token "
                'vectors, so a model on it needs anchor="vector" and token_vectors=False.'
            )

    def to(self, device: torch.device | str) -> QuestionEncoder:
        """Move it; returns itself."""
        if self.model.device != torch.device(device):  # moving walks through every module, and questions are short
            self.model.to(device)
        return self

    def encode(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> torch.Tensor:
        """`(n, dim)` float32 unit vectors on the CPU, those of sentence-transformers."""
        pooled = torch.empty(len(texts), self.model.config.hidden_size)
        for rows, output, mask, _ in self._batches(texts, batch_size):
            pooled[rows] = self._pool(output.last_hidden_state.float(), mask)
        return pooled

    def encode_tokens(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> list[TokenVectors]:
        """The last hidden states of each question, divided by the length of their mean; on the CPU.

        Raises:
            ValueError: the encoder does not pool by the mean.
        """
        self.check_pools_the_mean()
        found: dict[int, TokenVectors] = {}
        for rows, output, mask, encoded in self._batches(texts, batch_size):
            hidden = output.last_hidden_state.float()
            mean = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            hidden = (hidden / mean.norm(dim=-1, keepdim=True)[:, :, None]).cpu()
            for place, row in enumerate(rows):
                offsets, words = self._places(encoded, row)
                found[row] = TokenVectors(hidden[place, : len(words)].clone(), offsets, words)
        return [found[row] for row in range(len(texts))]

    def encode_depths(
        self, texts: Sequence[str], batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[list[int], list[TokenVectors], torch.Tensor]]:
        """What the encoder knows of each token at `DEPTHS` depths, from its embeddings to its last layer.

        Yields:
            of some questions of about one length their rows; their tokens, with states `(length, DEPTHS * dim)`; and
            the vectors `(rows, dim)` of `encode`. All on the CPU.

        Raises:
            ValueError: a question has no token that the encoder knows.
        """
        for rows, output, mask, encoded in self._batches(texts, batch_size, output_hidden_states=True):
            last = len(output.hidden_states) - 1
            chosen = [output.hidden_states[round(last * depth / (DEPTHS - 1))].float() for depth in range(DEPTHS)]
            states = torch.cat([layer_norm(layer, layer.shape[-1:]) for layer in chosen], dim=-1).cpu()
            tokens = []
            for own, row in zip(states, rows, strict=True):
                offsets, words = self._places(encoded, row)
                tokens.append(TokenVectors(own[: len(words)], offsets, words))
            yield rows, tokens, self._pool(output.last_hidden_state.float(), mask)

    @torch.no_grad()
    def _batches(self, texts: Sequence[str], batch_size: int, **options: Any) -> Any:
        """Rows, the transformer's output, mask and encoding of texts of about one length."""
        texts = as_questions(texts)
        encoded, lengths = self._tokenise(texts)
        paddings = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        names = [name for name in self.tokenizer.model_input_names if name in encoded]
        for rows in like_lengths(lengths, batch_size, self.model.device):
            inputs = {
                name: pad_sequence([torch.tensor(encoded[name][row]) for row in rows], True, paddings.get(name, 0)).to(
                    self.model.device
                )
                for name in names
            }
            yield rows, self.model(**inputs, **options), inputs["attention_mask"], encoded

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last states `(batch, length, dim)` -> unit vectors `(batch, dim)` on the CPU."""
        if self.pooling == "mean":
            vectors = (hidden * mask[:, :, None]).sum(dim=1)
        else:
            last = mask.sum(dim=1) - 1 if self.pooling == "lasttoken" else torch.zeros_like(mask[:, 0])
            vectors = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return normalize(vectors, dim=-1).cpu()

    def _tokenise(self, texts: Sequence[str]) -> tuple[Any, list[int]]:
        """The tokens of texts, not padded, and how many each has."""
        encoded = self.tokenizer(
            [self.prompt + text for text in texts],
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if 0 in lengths:
            raise ValueError("A question has no token that the document encoder knows.")
        return encoded, lengths

    def _places(self, encoded: Any, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets and words of one question's tokens, those of the prompt taken for special tokens."""
        offsets = torch.tensor(encoded["offset_mapping"][row]) - len(self.prompt)
        outside = (offsets[:, 0] < 0) | (offsets[:, 0] == offsets[:, 1])
        words = torch.tensor([-1 if word is None else word for word in encoded.word_ids(row)])
        return offsets.masked_fill(outside[:, None], 0), words.masked_fill(outside, -1)


def like_lengths(lengths: Sequence[int], batch_size: int, device: torch.device) -> Iterator[list[int]]:
    """Batches of rows, longest first, of lengths so alike that padding costs a CPU less than a further batch.

    Args:
        lengths: tokens of each row.
        batch_size: most rows of a batch.
        device: where they are read; only a CPU takes as much longer for padding.
    """
    most = CPU_PADDING if device.type == "cpu" else None
    batch: list[int] = []
    padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padding += lengths[batch[0]] - lengths[row] if batch else 0
        if len(batch) == batch_size or (most is not None and padding > most):
            yield batch
            batch, padding = [], 0
        batch.append(row)
    if batch:
        yield batch


def pad_tokens(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Questions of `(length, dim)` each as `input_vectors (batch, length, dim)` and `input_mask (batch, length)`.

    Padded on the left, for the decoder reads on from the last position.
    """
    masks = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return (
        pad_sequence(list(rows), batch_first=True, padding_side="left"),
        pad_sequence(masks, batch_first=True, padding_side="left"),
    )


def _read_json(where: str, file: str, options: dict[str, Any]) -> Any:
    """What a JSON file of the encoder holds, or None where it has none."""
    path = cached_file(
        where,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
        **options,
    )
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (ValueError, RecursionError) as error:
        raise OSError(f"{path} is not a JSON file ({error}): fetch the document encoder again.") from error


def _pooling(name: str, config: Any, prompt: str) -> str:
    """How the encoder pools; by the mean where it does not say, as sentence-transformers takes it."""
    if config is None:
        return "mean"
    chosen = config.get("pooling_mode")
    if isinstance(chosen, list):
        chosen = "+".join(chosen)
    if chosen is None:
        modes = [
            key.removeprefix("pooling_mode_") for key, value in config.items() if "pooling_mode_" in key and value
        ]
        names = {old: new for new, old in POOLINGS.items()}
        chosen = "+".join(names.get(mode, mode) for mode in modes) or "mean"
    if chosen not in POOLINGS:
        raise ValueError(
            f"The document encoder {name} pools by {chosen!r}; its vectors can be made here for "
            f"{', '.join(POOLINGS)} only: pass input_vectors made with sentence-transformers."
        )
    if prompt and not config.get("include_prompt", True):
        raise ValueError(
            f"The document encoder {name} leaves its prompt out of the pooling, which is not supported: "
            "pass input_vectors made with sentence-transformers."
        )
    return chosen


def _length(saved: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens the encoder reads, special ones included."""
    if saved.get("max_seq_length"):
        return int(saved["max_seq_length"])
    positions = getattr(model.config, "max_position_embeddings", -1)
    return min(tokenizer.model_max_length, positions) if positions != -1 else tokenizer.model_max_length
