"""Encode questions: tokenise the texts, batch them by length, and run the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging

from .anchors_amer import WordWeight, word_weights
from .building_amer import AMERBuilder
from .encoder_amer import QuestionEncoder, pad_tokens
from .parts_amer import Part, attribute_parts, encode_parts, split
from .prompting_amer import as_questions, longest_question, tokenize_queries
from .stopping_amer import QueryEmbeddings, blank, emitted

TOKENISED_BATCHES = 64  # number of batches that are tokenised and sorted by length together


class AMERQueryEncoder(AMERBuilder):
    """The methods of [`AMERModel`] that read questions: `encode_query`, `find_parts` and `attribute`."""

    _encoder: QuestionEncoder | None

    def tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokenise questions with the prompt: `input_ids`, `attention_mask`, `prefix_ids`; see `tokenize_queries`."""
        if self.tokenizer is None or self.config.prompt_template is None:
            raise ValueError("This model reads vectors only: it has no tokenizer and no prompt_template.")
        longest = longest_question(self.tokenizer, self.config)
        return tokenize_queries(self.tokenizer, self.config.prompt_template, texts, longest)

    @property
    def document_encoder(self) -> QuestionEncoder:
        """The frozen document encoder that the configuration names, on the model's device. Loaded on first use.

        Its transformer computes in `document_encoder_dtype`, or in bfloat16 in a bfloat16 model.

        Raises:
            OSError: The encoder cannot be loaded.
            ValueError: The configuration names no encoder, or AMER cannot run it (see [`QuestionEncoder`]).
        """
        if self._encoder is None:
            self._encoder = self.document_encoder_loader()()
        return self._encoder.to(self.device)

    def document_encoder_loader(self) -> Callable[[], QuestionEncoder]:
        """A function that loads the document encoder, with the errors of `document_encoder`.

        It can go to another process, unlike a loaded encoder, in whose layers transformers leaves local functions.
        """
        dtype = self.document_encoder_dtype or (torch.bfloat16 if self.dtype == torch.bfloat16 else None)
        options = {"path": self.document_encoder_path, "dtype": dtype, **self._encoder_options}
        return partial(QuestionEncoder.from_identity, self.config.document_encoder, **options)

    @overload
    def encode_query(
        self,
        texts: str | Iterable[str] | None = None,
        num_query_vectors: int | None = None,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        input_vectors: Any = None,
    ) -> torch.Tensor: ...

    @overload
    def encode_query(
        self,
        texts: str | Iterable[str] | None = None,
        num_query_vectors: Literal["auto"] = ...,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        input_vectors: Any = None,
    ) -> QueryEmbeddings: ...

    @torch.no_grad()
    def encode_query(
        self,
        texts: str | Iterable[str] | None = None,
        num_query_vectors: int | Literal["auto"] | None = None,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        input_vectors: Any = None,
    ) -> torch.Tensor | QueryEmbeddings:
        """Encode questions into query embeddings, in the order given. Batches hold questions of similar length.

        Args:
            texts: The questions in any sequence (list, array, series, column). A single string gives a result without
                the batch axis.
            num_query_vectors: m. Default: the configuration's. "auto": the model chooses between one and the
                configuration's `max_query_vectors`. With a fixed m, a model that splits questions returns zeros after
                the last part of a question.
            batch_size: Number of questions per batch.
            show_progress_bar: Show the number of finished batches.
            input_vectors: The same questions as vectors `(n, dim)`, for an anchored or vector-only model. For a model
                that reads token vectors: a sequence of n arrays `(length, dim)`. Not needed if the configuration names
                the document encoder, because the model then computes them. A model that splits questions reads each
                entry as one part, and accepts no texts with them.

        Returns:
            `(n, m, dim)` unit vectors, float32, on the CPU; `(m, dim)` for a single string. With "auto": the vectors
            and their mask, see [`QueryEmbeddings`].

        Raises:
            OSError: The document encoder is needed and cannot be loaded.
            TypeError: A question is not a string; the message names its position.
            ValueError: There are no questions, or a question is empty or not valid Unicode; m or batch_size is below
                1, or m does not fit the decoder's positions; the model cannot choose m ("auto"); the inputs are not
                those this model reads; input vectors are zero, not finite, or of another size or count; or the weights
                give query vectors of length zero.
        """
        if isinstance(texts, str):
            one = self.encode_query([texts], num_query_vectors, batch_size, show_progress_bar, input_vectors)
            return QueryEmbeddings(*(part[0] for part in one)) if isinstance(one, QueryEmbeddings) else one[0]
        texts = None if texts is None else as_questions(texts)
        auto = num_query_vectors == "auto"
        if auto and not self.config.chooses_number:
            raise ValueError('"auto" needs a model with a stop score, this one has no stop score: pass a number.')
        if self.config.splits_questions and texts is not None:
            return self._encode_parts(texts, num_query_vectors, batch_size, show_progress_bar, input_vectors)
        m = self.config.max_query_vectors if auto else num_query_vectors
        m = 1 if self.config.splits_questions else m
        input_vectors = _checked_questions(texts, input_vectors, batch_size, self.config.token_vectors)
        count = len(input_vectors) if texts is None else len(texts)
        batches = logging.tqdm(
            self._batches(texts, input_vectors, batch_size),
            total=-(-count // batch_size),
            desc="Encoding",
            disable=not show_progress_bar,
        )
        order, encoded, masks = [], [], []
        with self._evaluating():
            for rows, batch in batches:
                batch = {name: value.to(self.device) for name, value in batch.items()}
                output = self(**batch, num_query_vectors=m)
                order.append(rows)
                encoded.append(output.query_embeddings.cpu())
                if auto:
                    masks.append(_emitted_mask(output).cpu())
        back = torch.cat(order).argsort()
        query_embeddings = torch.cat(encoded)[back]
        if not query_embeddings.any(dim=-1).all():
            raise ValueError("Some query vectors have length zero: the weights are damaged, fetch the model again.")
        if not auto:
            return query_embeddings
        mask = torch.cat(masks)[back]
        most = int(mask.sum(dim=1).max())
        return QueryEmbeddings(blank(query_embeddings, mask)[:, :most], mask[:, :most])

    @torch.no_grad()
    def find_parts(self, texts: Sequence[str], most: int | None = None, batch_size: int = 64) -> list[list[Part]]:
        """Find the parts of each question, in order. Each part has its own query vector.

        Args:
            texts: The questions.
            most: Maximum number of parts; the last one includes all further parts. Default: the configuration's
                `max_query_vectors`.
            batch_size: Number of questions per batch.

        Raises:
            OSError: The document encoder cannot be loaded.
            ValueError: There are no questions, a question is empty, most < 1, or the model does not split questions.
        """
        if not self.config.splits_questions:
            raise ValueError("This model does not split questions: use one trained with splits_questions=True.")
        texts = as_questions(texts)
        _checked_questions(texts, None, batch_size, True)
        most = _checked_most(self.config.max_query_vectors if most is None else most, "most")
        with self._evaluating():
            return split(self, texts, most, batch_size)

    def _encode_parts(
        self,
        texts: Sequence[str],
        num_query_vectors: int | Literal["auto"] | None,
        batch_size: int,
        show_progress_bar: bool,
        input_vectors: Any,
    ) -> torch.Tensor | QueryEmbeddings:
        """`encode_query` for a model that splits questions."""
        if input_vectors is not None:
            raise ValueError(
                "A model that splits questions encodes their parts itself: pass texts or input_vectors, not both."
            )
        _checked_questions(texts, None, batch_size, True)
        auto = num_query_vectors == "auto"
        most = self.config.num_query_vectors if num_query_vectors is None else num_query_vectors
        most = _checked_most(self.config.max_query_vectors if auto else most, "num_query_vectors", ' or "auto"')
        with self._evaluating():
            _, vectors = encode_parts(self, list(texts), most, batch_size, show_progress_bar)
        query_embeddings = pad_sequence(vectors, batch_first=True)
        if not auto:
            return nn.functional.pad(query_embeddings, (0, 0, 0, most - query_embeddings.shape[1]))
        lengths = torch.tensor([len(own) for own in vectors])
        return QueryEmbeddings(query_embeddings, torch.arange(query_embeddings.shape[1]) < lengths[:, None])

    @torch.no_grad()
    def attribute(self, question: str, num_query_vectors: int | None = None) -> list[list[WordWeight]]:
        """Show which words of a question each query vector represents.

        Args:
            question: One question.
            num_query_vectors: m. Default: the model's choice, or the configuration's number if it cannot choose.

        Returns:
            For each query vector, its weight on each word, in the order of the question. The words are all that the
            encoder read; for a model that splits questions, those of the vector's part.

        Raises:
            OSError: The document encoder cannot be loaded.
            ValueError: The question is empty, or the model neither has token anchors nor splits questions.
        """
        if self.config.splits_questions:
            _checked_questions([question], None, 1, True)
            most = self.config.max_query_vectors if num_query_vectors is None else num_query_vectors
            most = _checked_most(most, "num_query_vectors")
            with self._evaluating():
                return attribute_parts(self, question, most)
        if self.config.anchor != "tokens":
            raise ValueError(
                'attribute needs a model with anchor="tokens" or one that splits questions; this one has '
                f"anchor={self.config.anchor!r}."
            )
        as_questions([question])
        tokens = self.document_encoder.encode_tokens([question])[0]
        m, auto = num_query_vectors, num_query_vectors is None and self.config.stop_score
        ((_, batch),) = self._batches([question], [tokens.vectors], 1)
        batch = {name: value.to(self.device) for name, value in batch.items()}
        with self._evaluating():
            output = self(**batch, num_query_vectors=self.config.max_query_vectors if auto else m)
        weights = output.attention[0, :, -len(tokens.vectors) :].cpu()
        if auto:
            weights = weights[emitted(output.stop_logits)[0].cpu()]
        return [word_weights(question, own, tokens.offsets, tokens.words) for own in weights]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switch to evaluation mode, and afterwards back to the previous mode."""
        was_training = self.training
        if was_training:
            self.eval()
        try:
            yield
        finally:
            if was_training:
                self.train()

    def _batches(
        self, texts: Sequence[str] | None, input_vectors: Any, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Rows and inputs of each batch, longest questions first: little padding, and memory errors come at once.

        Texts of similar length are tokenised together, some batches at a time, so a long question costs little memory.
        """
        if texts is not None:
            lengths = torch.tensor([len(text) for text in texts])
        elif self.config.token_vectors:
            lengths = torch.tensor([len(rows) for rows in input_vectors])
        else:
            lengths = torch.zeros(len(input_vectors))
        for stretch in lengths.argsort(descending=True, stable=True).split(TOKENISED_BATCHES * batch_size):
            rows = stretch.tolist()
            vectors = None if input_vectors is None else [input_vectors[row] for row in rows]
            inputs = self._read_questions(None if texts is None else [texts[row] for row in rows], vectors, batch_size)
            for places in inputs.lengths().argsort(descending=True, stable=True).split(batch_size):
                yield stretch[places], inputs.batch(places)

    def _read_questions(
        self, texts: list[str] | None, vectors: list[torch.Tensor] | None, batch_size: int
    ) -> _QuestionInputs:
        """The tokens of the questions and the document encoder's vectors of them, as far as the model reads them."""
        tokens: dict[str, torch.Tensor] = {}
        if texts is not None:
            embeds = self.config.anchored or self.config.token_vectors
            if vectors is None and embeds and self.config.document_encoder:
                vectors = self._encode_own(texts, batch_size)
            if self.config.reads_text or vectors is None:
                tokens = self.tokenize(texts)
        return _QuestionInputs(tokens, vectors)

    def _encode_own(self, texts: list[str], batch_size: int) -> list[torch.Tensor]:
        """Encode the questions with the document encoder: token vectors `(length, dim)` or one vector per question."""
        if self.config.token_vectors:
            return [tokens.vectors for tokens in self.document_encoder.encode_tokens(texts, batch_size)]
        return list(self.document_encoder.encode(texts, batch_size))


class _QuestionInputs(NamedTuple):
    """Questions as the model reads them.

    Attributes:
        tokens: `input_ids` and `attention_mask`, `(questions, length)`, padded on the left, and `prefix_ids`; empty if
            the model reads no text.
        vectors: `(dim,)` or `(length, dim)` for each question; None if the model reads no vectors.
    """

    tokens: dict[str, torch.Tensor]
    vectors: list[torch.Tensor] | None

    def lengths(self) -> torch.Tensor:
        """The number of tokens of each question."""
        if self.tokens:
            return self.tokens["attention_mask"].sum(dim=1)
        return torch.tensor([len(own) if own.dim() == 2 else 1 for own in self.vectors or []])

    def batch(self, places: torch.Tensor) -> dict[str, torch.Tensor]:
        """The arguments of the model for some of the questions, of which the first is the longest."""
        batch = {}
        if self.tokens:
            longest = int(self.tokens["attention_mask"][places[0]].sum())
            batch = {name: self.tokens[name][places, -longest:] for name in ("input_ids", "attention_mask")}
            if "prefix_ids" in self.tokens:
                batch["prefix_ids"] = self.tokens["prefix_ids"]
        if self.vectors is not None:
            chosen = [self.vectors[place] for place in places.tolist()]
            if chosen[0].dim() == 2:
                batch["input_vectors"], batch["input_mask"] = pad_tokens(chosen)
            else:
                batch["input_vectors"] = torch.stack(chosen)
        return batch


def _emitted_mask(output: Any) -> torch.Tensor:
    """The mask `(batch, m)` of the vectors before the model's stop; all vectors if it has no stop score."""
    if output.stop_logits is None:
        return torch.ones(output.query_embeddings.shape[:2], dtype=torch.bool)
    return emitted(output.stop_logits)


def _checked_most(most: Any, name: str, otherwise: str = "") -> int:
    """The maximum number of parts, if it is one; the message gives the argument's name and what else it may be."""
    if not isinstance(most, Integral) or most < 1:
        raise ValueError(f"{name} must be an integer of at least 1{otherwise}, got {most!r}.")
    return int(most)


def _checked_questions(
    texts: Sequence[str] | None, input_vectors: Any, batch_size: int, token_vectors: bool
) -> torch.Tensor | list[torch.Tensor] | None:
    """Check questions and batch size; return the vectors as float32: `(n, dim)`, or a list of `(length, dim)`."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if texts is None and input_vectors is None:
        raise ValueError("No question was given: pass texts, input_vectors, or both.")
    if len(texts if texts is not None else input_vectors) == 0:
        raise ValueError("No questions were given; pass at least one.")
    if input_vectors is None:
        return None
    if token_vectors:
        input_vectors = [torch.as_tensor(tokens, dtype=torch.float32) for tokens in input_vectors]
        if any(tokens.dim() != 2 or not len(tokens) for tokens in input_vectors):
            raise ValueError("input_vectors must hold one array (length, dim) of token vectors for each question.")
    else:
        input_vectors = torch.as_tensor(input_vectors, dtype=torch.float32)
    for vectors in input_vectors if token_vectors else [input_vectors]:
        if not torch.isfinite(vectors).all() or (vectors == 0).all(dim=-1).any():
            raise ValueError(
                "input_vectors hold NaN, infinite values or a zero vector: check the encoder that computed them."
            )
    if texts is not None and len(texts) != len(input_vectors):
        raise ValueError(f"{len(texts)} texts were given with {len(input_vectors)} input_vectors: pass equal numbers.")
    return input_vectors
