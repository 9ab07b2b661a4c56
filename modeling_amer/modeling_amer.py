"""AMER: a decoder LM that reads a question and emits query embeddings one after another.

- two linear projections join the space of the documents and the space of the decoder (paper §4)
- each emitted vector is fed back as the next input; the KV cache is kept
- in training what is fed back is made without gradient, and read in one pass: m steps cost little more than one
- the prompt that all questions share is read once for the whole batch
- a saved adapter holds LoRA and projections only; the frozen base is fetched from where it always was
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging

from .configuration_amer import AMERConfig
from .persistence_amer import AMERPreTrainedModel
from .prompting_amer import tokenize_queries

if TYPE_CHECKING:
    # Never run. Of a local folder, transformers below 5.10 takes along only what this very file names; and the one for
    # sentence-transformers is named nowhere else.
    from .checksums_amer import sha256  # noqa: F401
    from .probe_amer import Probe  # noqa: F401
    from .publishing_amer import push_files  # noqa: F401
    from .sentence_transformers_amer import AMERModule  # noqa: F401
    from .staging_amer import staged  # noqa: F401


# What libraries pass to every model and this one does not need: the Trainer, and sentence-transformers its `task`.
IGNORED_ARGUMENTS = frozenset({"num_items_in_batch", "return_loss", "task"})
TOKENISED_BATCHES = 64  # batches of questions that are tokenised, and sorted by length, together


class _Teacher(NamedTuple):
    """What is fed back in place of the predictions (scheduled sampling, paper §4.1); see `AMERModel.forward`."""

    vectors: torch.Tensor | None
    mask: torch.Tensor | None

    def choose(self, predicted: torch.Tensor, step: int) -> torch.Tensor:
        """`(batch, n, dim)` to feed back where `predicted (batch, n, dim)` are the outputs from `step` on."""
        if self.vectors is None:
            return predicted
        steps = slice(step, step + predicted.shape[1])
        if self.mask is None:
            return self.vectors[:, steps]
        return torch.where(self.mask[:, steps, None], self.vectors[:, steps], predicted)

    def feed(self, count: int, predict: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The first `count` vectors to feed back; nothing is predicted where none would be used."""
        if self.vectors is not None and self.mask is None:
            return self.vectors[:, :count]
        return self.choose(predict(), 0)


@dataclass
class AMEROutput(ModelOutput):
    """Output of [`AMERModel`].

    Args:
        query_embeddings: unit vectors in the space of the documents, `(batch, m, dim)`, float32.
    """

    query_embeddings: torch.FloatTensor | None = None


class Projection(nn.Linear):
    """A linear layer computed in its own precision (float32), whatever the decoder's."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        with torch.autocast(vectors.device.type, enabled=False):
            return super().forward(vectors.to(self.weight.dtype))


class AMERModel(AMERPreTrainedModel):
    """Autoregressive Multi-Embedding Retriever (paper §4): question in, m query embeddings out.

    Build a new one with [`AMERModel.from_base`], load a trained one with `from_pretrained`.
    """

    def __init__(
        self,
        config: AMERConfig,
        backbone: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.text_config) if backbone is None else backbone
        config.text_config = self.backbone.config  # one object, so that the attention implementation stays in step
        config._attn_implementation_internal = self.backbone.config._attn_implementation
        hidden_size = config.text_config.hidden_size
        self.scale = hidden_size**0.5  # hidden states are that long; a step of Adam must not throw a unit anchor over
        self.input_projection = Projection(config.document_dim, hidden_size)
        self.output_projection = Projection(hidden_size, config.document_dim)
        self.tokenizer = tokenizer
        self.post_init()
        if config.weights == "adapter":
            self._add_lora()  # after post_init, which would fill lora_B with noise
        self._refresh_keys_to_ignore()

    # ------------------------------------------------------------------------------------------------- computation

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prefix_ids: torch.LongTensor | None = None,
        input_vectors: torch.FloatTensor | None = None,
        num_query_vectors: int | None = None,
        teacher_vectors: torch.FloatTensor | None = None,
        teacher_mask: torch.BoolTensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> AMEROutput | tuple[torch.Tensor, ...]:
        """Emit `num_query_vectors` query embeddings, each fed back as the next input (paper §4.1, §4.2).

        Args:
            input_ids: `(batch, length)` token ids, padded on the left.
            attention_mask: `(batch, length)`, 0 on padding; all ones if not given.
            prefix_ids: `(1, prefix)` token ids that come before every row of `input_ids`, read once for the batch.
            input_vectors: `(batch, dim)` the question as a vector, projected into the decoder as one more position
                after the text; the anchor of an anchored model, the whole question in the synthetic study.
            num_query_vectors: m; the configuration's by default.
            teacher_vectors: `(batch, >= m - 1, dim)` vectors to feed back in place of the predictions.
            teacher_mask: `(batch, >= m - 1)` bool, True where the teacher's vector is fed instead of the prediction.
                Without it, every teacher vector is fed (teacher forcing).
            return_dict: False for a tuple.
            kwargs: what libraries pass to every model (`IGNORED_ARGUMENTS`); it has no effect.

        Returns:
            `query_embeddings (batch, m, dim)`, unit length, float32.

        Raises:
            TypeError: an argument of another name.
            ValueError: m < 1, not the inputs this model reads, vectors of another size than the documents', or
                padding on the right.
        """
        if unknown := kwargs.keys() - IGNORED_ARGUMENTS:
            raise TypeError(f"AMERModel.forward() has no argument {', '.join(sorted(unknown))}.")
        num_query_vectors = self.config.num_query_vectors if num_query_vectors is None else num_query_vectors
        self._check_inputs(input_ids, attention_mask, input_vectors, num_query_vectors)
        if prefix_ids is not None and self._window_ends_within(prefix_ids, input_ids, num_query_vectors):
            input_ids, attention_mask = _with_prefix(prefix_ids, input_ids, attention_mask)
            prefix_ids = None
        inputs, mask = self._embed(input_ids, attention_mask, input_vectors)
        anchor = normalize(input_vectors.float(), dim=-1)[:, None] if self.config.anchored else 0
        teacher = _Teacher(teacher_vectors, teacher_mask)
        if self.training and not self._gradients_may_pass_the_cache():
            questions = {"input_ids": input_ids, "attention_mask": attention_mask, "input_vectors": input_vectors}
            fed = None
            if num_query_vectors > 1:
                fed = self._roll_out_anew(num_query_vectors - 1, teacher, prefix_ids=prefix_ids, **questions)
            query_embeddings = self._read_at_once(prefix_ids, inputs, mask, fed, anchor)
        else:
            cache = DynamicCache(config=self.backbone.config)
            mask = self._read_prefix(prefix_ids, mask, cache)
            first = self._emit(self._read(inputs, mask, cache)[:, -1:], anchor)
            decode = self._roll_out if self.training else self._decode
            query_embeddings = decode(first, num_query_vectors, mask, cache, anchor, teacher)
        if self.training and num_query_vectors == 1 and input_vectors is None:
            # A single vector feeds nothing back, but distributed training waits for a gradient of every parameter.
            query_embeddings = query_embeddings + 0 * sum(part.sum() for part in self.input_projection.parameters())
        output = AMEROutput(query_embeddings=query_embeddings)
        return output if return_dict is not False else output.to_tuple()

    def _check_inputs(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        input_vectors: torch.Tensor | None,
        num_query_vectors: int,
    ) -> None:
        if not isinstance(num_query_vectors, Integral) or num_query_vectors < 1:
            raise ValueError(f"num_query_vectors must be an integer of at least 1, got {num_query_vectors!r}.")
        if (input_ids is not None) != self.config.reads_text:
            raise ValueError(
                "This model reads its questions as text: pass input_ids."
                if self.config.reads_text
                else "This model reads vectors only: it has no prompt_template, so it takes no input_ids."
            )
        if (input_vectors is not None) != self.config.reads_vectors:
            raise ValueError(
                "This model also reads the document encoder's embedding of each question: "
                "pass input_vectors (batch, dim), or search through amer.search.Searcher, which makes them."
                if self.config.reads_vectors
                else "This model is not anchored and reads text only: it takes no input_vectors."
            )
        if attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError(
                "attention_mask ends in 0: the decoder reads on from the last position, so pad on the left."
            )
        if input_vectors is not None and input_vectors.shape[1:] != (self.config.document_dim,):
            raise ValueError(
                f"input_vectors have shape {tuple(input_vectors.shape)}, expected (batch, {self.config.document_dim})."
            )

    def _embed(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, input_vectors: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Input embeddings `(batch, length, hidden)` and mask `(batch, length)` of text, vector, or both."""
        parts, masks = [], []
        if input_ids is not None:
            parts.append(self.get_input_embeddings()(input_ids))
            masks.append(torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        if input_vectors is not None:
            vector = self.input_projection(input_vectors)
            parts.append(vector.to(self.get_input_embeddings().weight.dtype)[:, None])
            masks.append(torch.ones(len(vector), 1, dtype=torch.long, device=vector.device))
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1)

    def _window_ends_within(self, prefix_ids: torch.Tensor, input_ids: torch.Tensor, num_query_vectors: int) -> bool:
        """Whether some layers do not see all of a prompt: their window counts padding, so none may lie inside."""
        window = getattr(self.config.text_config, "sliding_window", None)
        length = prefix_ids.shape[1] + input_ids.shape[1] + self.config.anchored + num_query_vectors - 1
        return window is not None and window < length

    def _read_prefix(self, prefix_ids: torch.Tensor | None, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Read the shared prefix into the cache, once for all rows; the mask that covers it too."""
        if prefix_ids is None:
            return mask
        self._read(self.get_input_embeddings()(prefix_ids), torch.ones_like(prefix_ids), cache)
        cache.batch_repeat_interleave(len(mask))
        return torch.cat([mask.new_ones(len(mask), prefix_ids.shape[1]), mask], dim=1)

    def _read(self, inputs: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
        """Hidden states `(batch, length, hidden)` of the new inputs; the mask covers what the cache holds too."""
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        return self.backbone(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def _emit(self, hidden: torch.Tensor, anchor: torch.Tensor | int) -> torch.Tensor:
        """Hidden states `(batch, n, hidden)` -> query embeddings `(batch, n, dim)`."""
        return normalize(self.output_projection(hidden / self.scale) + anchor, dim=-1)

    def _project(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors `(batch, n, dim)` -> inputs of the decoder `(batch, n, hidden)`."""
        return self.input_projection(vectors).to(self.get_input_embeddings().weight.dtype)

    def _decode(
        self,
        first: torch.Tensor,
        count: int,
        mask: torch.Tensor,
        cache: DynamicCache,
        anchor: torch.Tensor | int,
        teacher: _Teacher,
    ) -> torch.Tensor:
        """One vector after another, each read before the next: `(batch, 1, dim)` -> `(batch, count, dim)`."""
        outputs = [first]
        for step in range(count - 1):
            fed = self._project(teacher.choose(outputs[-1], step))
            mask = _extended(mask, 1)
            outputs.append(self._emit(self._read(fed, mask, cache), anchor))
        return torch.cat(outputs, dim=1)

    def _roll_out(
        self,
        first: torch.Tensor,
        count: int,
        mask: torch.Tensor,
        cache: DynamicCache,
        anchor: torch.Tensor | int,
        teacher: _Teacher,
    ) -> torch.Tensor:
        """As `_decode`, for training: predictions are made without gradient, then all that is fed is read at once."""
        if count == 1:
            return first
        with torch.no_grad():
            fed = teacher.feed(
                count - 1, lambda: self._decode(first, count - 1, mask, _detached(cache), anchor, teacher)
            )
        rest = self._read(self._project(fed), _extended(mask, count - 1), cache)
        return torch.cat([first, self._emit(rest, anchor)], dim=1)

    def _gradients_may_pass_the_cache(self) -> bool:
        """Not under gradient checkpointing, whose layers drop the cache without a word; nor where weights are sharded
        (FSDP2): they are gathered for gradients that enter a layer by its output, and not by the cache."""
        checkpointing = any(getattr(part, "gradient_checkpointing", False) for part in self.modules())
        sharded = any(kind.__name__ == "FSDPModule" for kind in type(self).__mro__)
        return not checkpointing and not sharded

    def _roll_out_anew(self, count: int, teacher: _Teacher, **questions: torch.Tensor | None) -> torch.Tensor:
        """What is fed back, `(batch, count, dim)`, predicted in evaluation mode, where there is a cache."""

        def predict() -> torch.Tensor:
            options = {"teacher_vectors": teacher.vectors, "teacher_mask": teacher.mask}
            return self.forward(**questions, num_query_vectors=count, **options).query_embeddings

        self.eval()
        try:
            with torch.no_grad():
                fed = teacher.feed(count, predict)
        finally:
            self.train()
        torch.clear_autocast_cache()  # older torch would hand out again what it cast without gradient
        return fed

    def _read_at_once(
        self,
        prefix_ids: torch.Tensor | None,
        inputs: torch.Tensor,
        mask: torch.Tensor,
        fed: torch.Tensor | None,
        anchor: torch.Tensor | int,
    ) -> torch.Tensor:
        """Questions and what is fed back in one pass without a cache: a query embedding after each."""
        count = 0 if fed is None else fed.shape[1]
        parts, mask = [inputs], _extended(mask, count)
        if prefix_ids is not None:
            parts.insert(0, self.get_input_embeddings()(prefix_ids).expand(len(mask), -1, -1))
            mask = torch.cat([mask.new_ones(len(mask), prefix_ids.shape[1]), mask], dim=1)
        if fed is not None:
            parts.append(self._project(fed))
        hidden = self._read(torch.cat(parts, dim=1), mask, None)
        return self._emit(hidden[:, -count - 1 :], anchor)

    # ---------------------------------------------------------------------------------------------------- encoding

    def tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The prompted questions as `input_ids`, `attention_mask` and `prefix_ids`; see `tokenize_queries`."""
        if self.tokenizer is None or self.config.prompt_template is None:
            raise ValueError("This model reads vectors only: it has no tokenizer and no prompt_template.")
        return tokenize_queries(self.tokenizer, self.config.prompt_template, texts)

    @torch.no_grad()
    def encode_query(
        self,
        texts: str | Sequence[str] | None = None,
        num_query_vectors: int | None = None,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        input_vectors: Any = None,
    ) -> torch.Tensor:
        """Query embeddings of many questions: batched by length, cached, in the order given.

        Args:
            texts: the questions; one string gives one question without the batch axis.
            num_query_vectors: m; the configuration's by default.
            batch_size: questions decoded at a time.
            show_progress_bar: show how many batches are done.
            input_vectors: `(n, dim)` the same questions as vectors, for an anchored or a vector-only model.

        Returns:
            `(n, m, dim)` unit vectors, float32, on the CPU; `(m, dim)` for one string.

        Raises:
            ValueError: an empty question, none at all, m or batch_size < 1, not what this model reads, or vectors
                that are not finite, zero, or of another size or count.
        """
        if isinstance(texts, str):
            return self.encode_query([texts], num_query_vectors, batch_size, show_progress_bar, input_vectors)[0]
        input_vectors = _checked_questions(texts, input_vectors, batch_size)
        count = len(input_vectors) if texts is None else len(texts)
        batches = logging.tqdm(
            self._batches(texts, input_vectors, batch_size),
            total=-(-count // batch_size),
            desc="Encoding",
            disable=not show_progress_bar,
        )
        was_training, order, encoded = self.training, [], []
        self.eval()
        try:
            for rows, batch in batches:
                batch = {name: value.to(self.device) for name, value in batch.items()}
                order.append(rows)
                encoded.append(self(**batch, num_query_vectors=num_query_vectors).query_embeddings.cpu())
        finally:
            self.train(was_training)
        return torch.cat(encoded)[torch.cat(order).argsort()]

    def _batches(
        self, texts: Sequence[str] | None, input_vectors: torch.Tensor | None, batch_size: int
    ) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Rows and inputs of each batch, by falling length: little padding, and what is too large is so at once.

        Tokenised some batches at a time, texts of like length together, so that one long question costs no memory.
        """
        count = len(input_vectors) if texts is None else len(texts)
        if texts is None:
            for rows in torch.arange(count).split(batch_size):
                yield rows, {"input_vectors": input_vectors[rows]}
            return
        by_text = torch.tensor([len(text) for text in texts]).argsort(descending=True, stable=True)
        for stretch in by_text.split(TOKENISED_BATCHES * batch_size):
            questions = self.tokenize([texts[row] for row in stretch.tolist()])
            shared = {name: questions.pop(name) for name in ("prefix_ids",) if name in questions}
            lengths = questions["attention_mask"].sum(dim=1)
            for places in lengths.argsort(descending=True, stable=True).split(batch_size):
                batch = {name: ids[places, -int(lengths[places[0]]) :] for name, ids in questions.items()}
                if input_vectors is not None:
                    batch["input_vectors"] = input_vectors[stretch[places]]
                yield stretch[places], {**shared, **batch}

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if self.config.anchored and module is self.output_projection:
            init.zeros_(module.weight)  # untrained, the output is the anchor


def _with_prefix(
    prefix_ids: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The shared prefix put before every question, all padding before the prefix: ids and mask `(batch, all)`."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    prefix = prefix_ids.expand(len(input_ids), -1)
    ids, mask = torch.cat([prefix, input_ids], dim=1), torch.cat([torch.ones_like(prefix), mask], dim=1)
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def _extended(mask: torch.Tensor, count: int) -> torch.Tensor:
    """The mask with `count` more positions, all read."""
    return torch.cat([mask, mask.new_ones(len(mask), count)], dim=1)


def _detached(cache: DynamicCache) -> DynamicCache:
    """A copy without gradient; what is read into it does not reach the cache it was copied from."""
    twin = copy(cache)
    twin.layers = [copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
    return twin


def _checked_questions(texts: Sequence[str] | None, input_vectors: Any, batch_size: int) -> torch.Tensor | None:
    """The query vectors as a float32 tensor `(n, dim)`, once questions and batch size are in order."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if texts is None and input_vectors is None:
        raise ValueError("No question was given: pass texts, input_vectors, or both.")
    if len(texts if texts is not None else input_vectors) == 0:
        raise ValueError("No questions were given; pass at least one.")
    if input_vectors is None:
        return None
    input_vectors = torch.as_tensor(input_vectors, dtype=torch.float32)
    if not torch.isfinite(input_vectors).all() or (input_vectors == 0).all(dim=-1).any():
        raise ValueError(
            "input_vectors hold NaN, infinite values or a zero vector: the encoder that made them is broken."
        )
    if texts is not None and len(texts) != len(input_vectors):
        raise ValueError(f"{len(texts)} texts were given with {len(input_vectors)} input_vectors.")
    return input_vectors
