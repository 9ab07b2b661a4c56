"""The frozen document encoder, in plain transformers: it turns a question into one vector or into token vectors.

The encoder reads the settings that sentence-transformers saved with the weights (`modules.json`, pooling, maximum
length), so both libraries give the same vectors. It is never trained and never saved with the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch.nn.functional import layer_norm, normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from .prompting_amer import as_questions

POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}  # name -> name before 6.0
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize")
BATCH_SIZE = 64
DEPTHS = 5  # number of layers whose states the part labeller reads
CPU_PADDING = 128  # tokens of padding that cost MiniLM as much time as the fixed overhead of a batch


class TokenVectors(NamedTuple):
    """The tokens of one question, each with its vector.

    Attributes:
        vectors: `(length, dim)` float32. From `encode_tokens`: their mean has length 1 and equals the encoder's vector
            of the question. From `encode_depths`: concatenated states of several layers, with entries of about 1.
        offsets: `(length, 2)` int64, characters [start, end) of the question that each token covers; an empty range
            for special tokens and tokens of the prompt.
        words: `(length,)` int64, number of the word that contains each token, -1 for tokens outside words.
    """

    vectors: torch.Tensor
    offsets: torch.Tensor
    words: torch.Tensor


class QuestionEncoder:
    """Embeds questions with the document encoder that an [`AMERConfig`] names.

    Attributes:
        name: Name of the encoder, used in messages.
        model: Its transformer, in evaluation mode.
        tokenizer: Its tokenizer.
        pooling: "mean", "cls" or "lasttoken".
        max_length: Number of tokens it reads of a text.
        prompt: Text it puts before every question.
        revision: Commit, tag or branch of the encoder on the Hub, None if unknown.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        max_length: int = 512,
        prompt: str = "",
        revision: str | None = None,
    ) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.max_length = max_length
        self.prompt = prompt
        self.revision = revision
        self._lock = Lock()  # transformers changes the layers while it collects their states

    @classmethod
    def from_identity(
        cls,
        identity: Mapping[str, Any] | None,
        path: str | os.PathLike[str] | None = None,
        dtype: torch.dtype | None = None,
        **hub_options: Any,
    ) -> QuestionEncoder:
        """Load the encoder that a model or a store names. Custom code of the encoder never runs.

        Args:
            identity: `name`, and optionally `revision` and `query_prompt`; None if the model names no encoder.
            path: Folder of the weights, for a machine that cannot reach the Hub.
            dtype: Precision of its transformer. None: the precision of the saved weights. Vectors are float32.
            hub_options: Options of transformers: `token`, `cache_dir`, `local_files_only`, ...

        Raises:
            OSError: The encoder cannot be found.
            ValueError: No encoder is named, or it has more than a transformer and pooling, or a pooling other than
                `POOLINGS`.
        """
        if not identity:
            raise ValueError("The configuration names no document encoder: pass input_vectors.")
        name = identity["name"]
        where, revision = (name, identity.get("revision")) if path is None else (str(path), None)
        place = {**hub_options, "revision": revision}
        modules = _read_json(where, "modules.json", place) or []
        folders = {module["type"].rpartition(".")[2]: module.get("path", "") for module in modules}
        if extra := [kind for kind in folders if kind not in PLAIN_MODULES]:
            raise ValueError(
                f"The document encoder {name} has modules that plain transformers cannot run ({', '.join(extra)}): "
                "compute input_vectors with sentence-transformers and pass them."
            )
        options = {**place, "subfolder": folders.get("Transformer", "")}
        length = _read_json(where, "sentence_bert_config.json", options) or {}
        try:
            model = AutoModel.from_pretrained(where, dtype=dtype or "auto", trust_remote_code=False, **options)
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
        except (OSError, ValueError) as error:
            raise OSError(
                f"This model reads the vectors of its document encoder, {name!r}, which could not be loaded: make it "
                f"reachable, or pass the folder that holds it as document_encoder_path. ({error})"
            ) from error
        if not tokenizer.is_fast:
            raise ValueError(
                f"The tokenizer of {name} does not report the characters of each token: AMER needs a fast tokenizer."
            )
        pooling = _read_json(where, "config.json", {**place, "subfolder": folders["Pooling"]}) if modules else None
        prompt = identity.get("query_prompt") or ""
        max_length = _length(length, model, tokenizer)
        return cls(
            name, model, tokenizer, _pooling(name, pooling, prompt), max_length, prompt, identity.get("revision")
        )

    def check_pools_the_mean(self) -> None:
        """Raise ValueError if the encoder does not use mean pooling, which token anchors need."""
        if self.pooling != "mean":
            raise ValueError(
                f"The document encoder {self.name} pools by {self.pooling!r}: its vector is not the mean of its token "
                'vectors. Use anchor="vector" and token_vectors=False with this encoder.'
            )

    def to(self, device: torch.device | str) -> QuestionEncoder:
        """Move the encoder to a device and return it."""
        if self.model.device != torch.device(device):  # `to` is slow beside a short question
            self.model.to(device)
        return self

    def encode(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> torch.Tensor:
        """Encode texts as `(n, dim)` float32 unit vectors on the CPU, equal to those of sentence-transformers."""
        pooled = torch.empty(len(texts), self.model.config.hidden_size)
        for rows, output, mask, _ in self._batches(texts, batch_size):
            pooled[rows] = self._pool(output.last_hidden_state.float(), mask)
        return pooled

    def encode_tokens(self, texts: Sequence[str], batch_size: int = BATCH_SIZE) -> list[TokenVectors]:
        """The last hidden states of each question on the CPU, divided by the length of their mean.

        Raises:
            ValueError: The encoder does not use mean pooling.
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
        """The states of each token at `DEPTHS` layers, from the embeddings to the last layer.

        Yields:
            For each batch of questions of similar length: their rows, their tokens with states
            `(length, DEPTHS * dim)`, and their vectors `(rows, dim)` as in `encode`. All are on the CPU.

        Raises:
            ValueError: A question has no token that the encoder knows.
        """
        for rows, output, mask, encoded in self._batches(texts, batch_size, output_hidden_states=True):
            last = len(output.hidden_states) - 1
            chosen = [output.hidden_states[round(last * depth / (DEPTHS - 1))].float() for depth in range(DEPTHS)]
            states = torch.cat([layer_norm(layer, layer.shape[-1:]) for layer in chosen], dim=-1).cpu()
            vectors = self._pool(output.last_hidden_state.float(), mask)
            del output, chosen  # all layers are held: they must not outlast the pass
            tokens = []
            for own, row in zip(states, rows, strict=True):
                offsets, words = self._places(encoded, row)
                tokens.append(TokenVectors(own[: len(words)], offsets, words))
            yield rows, tokens, vectors

    @torch.no_grad()
    def _batches(self, texts: Sequence[str], batch_size: int, **options: Any) -> Any:
        """For each batch of texts of similar length: rows, the transformer's output, the mask and the encoding."""
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
            with self._lock:
                output = self.model(**inputs, **options)
            yield rows, output, inputs["attention_mask"], encoded

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last states `(batch, length, dim)` -> unit vectors `(batch, dim)` on the CPU."""
        if self.pooling == "mean":
            vectors = (hidden * mask[:, :, None]).sum(dim=1)
        else:
            last = mask.sum(dim=1) - 1 if self.pooling == "lasttoken" else torch.zeros_like(mask[:, 0])
            vectors = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return normalize(vectors, dim=-1).cpu()

    def _tokenise(self, texts: Sequence[str]) -> tuple[Any, list[int]]:
        """The tokens of texts without padding, and the number of tokens of each text."""
        encoded = self.tokenizer(
            [self.prompt + text for text in texts],
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if 0 in lengths:
            raise ValueError("The document encoder finds no token in one of the questions: rephrase or drop it.")
        return encoded, lengths

    def _places(self, encoded: Any, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets and words of one question's tokens; tokens of the prompt count as special tokens."""
        offsets = torch.tensor(encoded["offset_mapping"][row]) - len(self.prompt)
        outside = (offsets[:, 0] < 0) | (offsets[:, 0] == offsets[:, 1])
        words = torch.tensor([-1 if word is None else word for word in encoded.word_ids(row)])
        return offsets.masked_fill(outside[:, None], 0), words.masked_fill(outside, -1)


def like_lengths(lengths: Sequence[int], batch_size: int, device: torch.device) -> Iterator[list[int]]:
    """Group rows of similar length into batches, longest first. On a CPU, padding then costs less than another batch.

    Args:
        lengths: Number of tokens of each row.
        batch_size: Maximum number of rows in a batch.
        device: The device that reads the batches; only a CPU loses noticeable time on padding.
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
    """Pad questions of `(length, dim)` to `input_vectors (batch, length, dim)` and `input_mask (batch, length)`.

    The padding is on the left, because the decoder continues from the last position.
    """
    masks = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return (
        pad_sequence(list(rows), batch_first=True, padding_side="left"),
        pad_sequence(masks, batch_first=True, padding_side="left"),
    )


def _read_json(where: str, file: str, options: dict[str, Any]) -> Any:
    """The content of a JSON file of the encoder, or None if the encoder has no such file."""
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
    """The encoder's pooling. Default, as in sentence-transformers: "mean"."""
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
            f"The document encoder {name} pools by {chosen!r}, but AMER supports {', '.join(POOLINGS)} only: "
            "compute input_vectors with sentence-transformers and pass them."
        )
    if prompt and not config.get("include_prompt", True):
        raise ValueError(
            f"The document encoder {name} leaves its prompt out of the pooling, which AMER does not support: "
            "compute input_vectors with sentence-transformers and pass them."
        )
    return chosen


def _length(saved: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of tokens the encoder reads, including special tokens."""
    if saved.get("max_seq_length"):
        return int(saved["max_seq_length"])
    positions = getattr(model.config, "max_position_embeddings", -1)
    return min(tokenizer.model_max_length, positions) if positions != -1 else tokenizer.model_max_length
