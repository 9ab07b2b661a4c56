"""AMER: a decoder LM that reads a question and emits query embeddings one after another.

- Two linear projections map between the space of the documents and that of the decoder (paper §4).
- The model feeds each emitted vector back as its next input and keeps the KV cache.
- Alternatively, learned query tokens follow the question, and one pass emits all vectors.
- Alternatively, the model finds the parts of the question and makes one vector from each part by itself.
- An anchored model adds a correction to the document encoder's vector of the question, or to a weighted mean of its
  token vectors.
- In training, a pass without gradient makes the vectors to feed back, and one further pass reads them all: m steps
  cost little more than one.
- The model reads the prompt that all questions share once, and caches it across calls.
- A saved adapter holds LoRA and projections only; loading it fetches the frozen base from its original source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypedDict

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput

from .anchors_amer import TokenAnchor
from .configuration_amer import AMERConfig
from .encoder_amer import QuestionEncoder
from .encoding_amer import AMERQueryEncoder
from .lora_amer import add_lora
from .parts_amer import PartLabeller
from .prompt_cache_amer import PromptCache, twin_of
from .prompting_amer import positions_of

if TYPE_CHECKING:
    # Never run. For a local folder, transformers below 5.10 copies only the files that this file imports; no other
    # file imports the one for sentence-transformers.
    from .base_amer import load_base  # noqa: F401
    from .building_amer import AMERBuilder  # noqa: F401
    from .checksums_amer import sha256  # noqa: F401
    from .loading_amer import read_config  # noqa: F401
    from .persistence_amer import AMERPreTrainedModel  # noqa: F401
    from .probe_amer import Probe  # noqa: F401
    from .publishing_amer import push_files  # noqa: F401
    from .sentence_transformers_amer import AMERModule  # noqa: F401
    from .staging_amer import staged  # noqa: F401
    from .stopping_amer import emitted  # noqa: F401


# Arguments that libraries pass to every model (the Trainer; sentence-transformers: `task`). AMER does not need them.
IGNORED_ARGUMENTS = frozenset({"num_items_in_batch", "return_loss", "task"})
ANCHOR_SIZE = 64  # size of the space in which decoder states and token vectors are compared


class _Teacher(NamedTuple):
    """Vectors to feed back in place of predictions (scheduled sampling, paper §4.1); see `AMERModel.forward`."""

    vectors: torch.Tensor | None
    mask: torch.Tensor | None

    def choose(self, predicted: torch.Tensor, step: int) -> torch.Tensor:
        """The vectors `(batch, n, dim)` to feed back; `predicted (batch, n, dim)` are the outputs from `step` on."""
        if self.vectors is None:
            return predicted
        steps = slice(step, step + predicted.shape[1])
        if self.mask is None:
            return self.vectors[:, steps]
        return torch.where(self.mask[:, steps, None], self.vectors[:, steps], predicted)

    def feed(self, count: int, predict: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The first `count` vectors to feed back; calls `predict` only if a prediction is used."""
        if self.vectors is not None and self.mask is None:
            return self.vectors[:, :count]
        return self.choose(predict(), 0)


class _Questions(TypedDict, total=False):
    """The questions, as arguments of `AMERModel.forward`."""

    input_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    prefix_ids: torch.Tensor | None
    input_vectors: torch.Tensor | None
    input_mask: torch.Tensor | None


class _Source(NamedTuple):
    """The encoder's vectors `(batch, length, dim)` that make the anchors (one for a vector anchor), and their mask.

    Token anchors also use the decoder's states `(batch, length, hidden)` at the tokens.
    """

    vectors: torch.Tensor
    mask: torch.Tensor
    states: torch.Tensor | None = None

    def at(self, question: torch.Tensor) -> _Source:
        """A copy with the last states of `question (batch, n, hidden)`, which belong to the vectors."""
        return self._replace(states=question[:, -self.vectors.shape[1] :])

    def encoder_vector(self) -> torch.Tensor:
        """The encoder's own unit vector `(batch, 1, dim)` of each question."""
        return normalize((self.vectors * self.mask[:, :, None]).sum(dim=1, keepdim=True), dim=-1)


@dataclass
class AMEROutput(ModelOutput):
    """Output of [`AMERModel`].

    Args:
        query_embeddings: Unit vectors in the space of the documents, `(batch, m, dim)`, float32.
        stop_logits: `(batch, m)` log-odds that a vector is the question's last; only for models with a stop score.
        attention: `(batch, m, length)` weight of each token vector in each anchor; only for token anchors.
        part_logits: `(questions, words, 3)` logits of the part label of each token of `input_words` (see
            `parts_amer`); only for models that split questions.
    """

    query_embeddings: torch.Tensor | None = None
    stop_logits: torch.Tensor | None = None
    attention: torch.Tensor | None = None
    part_logits: torch.Tensor | None = None


class Projection(nn.Linear):
    """A linear layer that computes in its own precision (float32), whatever the decoder's precision."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        with torch.autocast(vectors.device.type, enabled=False):
            return super().forward(vectors.to(self.weight.dtype))


class AMERModel(AMERQueryEncoder):
    """Autoregressive Multi-Embedding Retriever (paper §4): question in, m query embeddings out.

    Load a trained model with `from_pretrained`. Build a new one with [`AMERModel.from_base`], or a small one with
    [`AMERModel.from_scratch`].

    Attributes:
        document_encoder_path: Folder of the document encoder's weights, used in place of the Hub. Set it before the
            first question.
        document_encoder_dtype: Precision that the document encoder computes in. Default: that of its saved weights.
            Set it before the first question.
    """

    def __init__(
        self,
        config: AMERConfig,
        backbone: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.text_config) if backbone is None else backbone
        config.text_config = self.backbone.config  # one shared object keeps the attention implementation in sync
        config._attn_implementation_internal = self.backbone.config._attn_implementation
        hidden_size = config.text_config.hidden_size
        self.scale = hidden_size**0.5  # length of hidden states; keeps Adam's steps small beside a unit anchor
        self.input_projection = Projection(config.document_dim, hidden_size)
        self.output_projection = Projection(hidden_size, config.document_dim)
        if config.anchor == "tokens":
            self.token_anchor = TokenAnchor(hidden_size, config.document_dim, ANCHOR_SIZE)
        if config.emission == "one_pass":
            self.query_tokens = nn.Embedding(config.max_query_vectors, hidden_size)
        if config.stop_score:
            self.stop_projection = Projection(hidden_size, 1)
        if config.splits_questions:
            self.part_labeller = PartLabeller(config)
        self.tokenizer = tokenizer
        self._prompt_cache = PromptCache()
        self._feeds_back = False  # True while a training step makes the vectors to feed back
        self.document_encoder_path: str | None = None
        self.document_encoder_dtype: torch.dtype | None = None
        self._encoder: QuestionEncoder | None = None  # not a module: neither trained nor saved
        self._encoder_options: dict[str, Any] = {}
        self.post_init()
        if config.weights == "adapter":
            add_lora(self.backbone, config.lora or {})  # after post_init, which would fill lora_B with noise
        self._refresh_keys_to_ignore()

    # ------------------------------------------------------------------------------------------------- computation

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prefix_ids: torch.Tensor | None = None,
        input_vectors: torch.Tensor | None = None,
        input_mask: torch.Tensor | None = None,
        input_words: torch.Tensor | None = None,
        words_mask: torch.Tensor | None = None,
        num_query_vectors: int | None = None,
        teacher_vectors: torch.Tensor | None = None,
        teacher_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> AMEROutput | tuple[torch.Tensor, ...]:
        """Emit `num_query_vectors` query embeddings (paper §4.1, §4.2), one after another or in one pass.

        Args:
            input_ids: `(batch, length)` token ids, padded on the left.
            attention_mask: `(batch, length)`, 0 on padding. Default: all ones.
            prefix_ids: `(1, prefix)` token ids that precede every row of `input_ids`; read once for the batch.
            input_vectors: `(batch, dim)` vector of each question, which the decoder reads as one position after the
                text. It is the anchor of an anchored model, and the whole question in the synthetic study. With
                `token_vectors` in the configuration: `(batch, length, dim)`, one position per token.
            input_mask: `(batch, length)` mask of the token vectors, 0 on padding (on the left). Default: all ones.
            input_words: `(questions, words, DEPTHS * dim)` states of whole questions from
                `QuestionEncoder.encode_depths`, for a model that splits questions. `input_vectors` then holds parts of
                any questions; without it, the model computes `part_logits` only.
            words_mask: `(questions, words)` mask of `input_words`, 0 on padding (on the left). Default: all ones.
            num_query_vectors: m. Default: the configuration's; 1 for a model that splits questions, because it reads
                each part by itself.
            teacher_vectors: `(batch, >= m - 1, dim)` vectors to feed back in place of the predictions.
            teacher_mask: `(batch, >= m - 1)` bool, True where the model reads the teacher's vector and not its own
                prediction. Default: the model reads every teacher vector (teacher forcing).
            return_dict: False returns a tuple.
            kwargs: Arguments that libraries pass to every model (`IGNORED_ARGUMENTS`); they have no effect.

        Returns:
            `query_embeddings (batch, m, dim)`, unit length, float32, and the other fields of `AMEROutput` that this
            model computes.

        Raises:
            TypeError: An unknown argument.
            ValueError: m is below 1 or above what the model can emit, the inputs are not those this model reads,
                vectors have another size than the documents, or padding is on the right.
        """
        if unknown := kwargs.keys() - IGNORED_ARGUMENTS:
            raise TypeError(f"AMERModel.forward() has no argument {', '.join(sorted(unknown))}.")
        part_logits = None if input_words is None else self._label_parts(input_words, words_mask)
        if part_logits is not None and input_vectors is None:
            output = AMEROutput(part_logits=part_logits)
            return output if return_dict is not False else output.to_tuple()
        if num_query_vectors is None:
            num_query_vectors = 1 if self.config.splits_questions else self.config.num_query_vectors
        self._check_inputs(input_ids, attention_mask, input_vectors, input_mask, num_query_vectors)
        if input_vectors is not None and input_mask is None:
            input_mask = torch.ones(input_vectors.shape[:-1], dtype=torch.long, device=input_vectors.device)
            input_mask = input_mask if self.config.token_vectors else input_mask[:, None]
        questions: _Questions = {"input_ids": input_ids, "attention_mask": attention_mask, "prefix_ids": prefix_ids}
        self._make_room(questions, num_query_vectors - 1 + (0 if input_mask is None else input_mask.shape[1]))
        if input_vectors is not None:
            questions["input_vectors"] = input_vectors
        if self.config.token_vectors:
            questions["input_mask"] = input_mask
        source = self._source(input_vectors, input_mask)
        inputs, mask = self._embed(questions["input_ids"], questions["attention_mask"], input_vectors, input_mask)
        teacher = _Teacher(teacher_vectors, teacher_mask)
        if self.config.emission == "one_pass":
            if teacher_vectors is not None:
                raise ValueError("A model that emits in one pass feeds no vectors back: leave out teacher_vectors.")
            question, hidden = self._emit_at_once(num_query_vectors, questions["prefix_ids"], inputs, mask)
        else:
            question, hidden = self._autoregress(num_query_vectors, inputs, mask, source, teacher, questions)
        query_embeddings, attention = self._emit(hidden, source and source.at(question))
        query_embeddings = self._with_encoder_share(query_embeddings, source)
        if self.training and input_vectors is None and (num_query_vectors == 1 or hasattr(self, "query_tokens")):
            # No vector is fed back here, but distributed training waits for a gradient of every parameter.
            query_embeddings = query_embeddings + 0 * sum(part.sum() for part in self.input_projection.parameters())
        stop_logits = self.stop_projection(hidden)[:, :, 0] if self.config.stop_score else None
        output = AMEROutput(
            query_embeddings=query_embeddings, stop_logits=stop_logits, attention=attention, part_logits=part_logits
        )
        return output if return_dict is not False else output.to_tuple()

    def _label_parts(self, input_words: torch.Tensor, words_mask: torch.Tensor | None) -> torch.Tensor:
        """The label logits `(questions, words, 3)` of each token."""
        if not self.config.splits_questions:
            raise ValueError("This model does not split questions: it takes no input_words.")
        return self.part_labeller(input_words, words_mask)

    def _make_room(self, questions: _Questions, further: int) -> None:
        """Check that text and `further` positions fit the decoder; for a sliding window, join prefix and question."""
        input_ids, prefix_ids = questions["input_ids"], questions["prefix_ids"]
        self._check_room(further + sum(ids.shape[1] for ids in (prefix_ids, input_ids) if ids is not None))
        if prefix_ids is None or input_ids is None or not self._window_ends_within(prefix_ids, input_ids, further):
            return
        ids, mask = _with_prefix(prefix_ids, input_ids, questions["attention_mask"])
        questions.update({"input_ids": ids, "attention_mask": mask, "prefix_ids": None})

    def _with_encoder_share(self, query_embeddings: torch.Tensor, source: _Source | None) -> torch.Tensor:
        """Add the encoder's own vector to each output; not in training, nor to vectors fed back in training."""
        if not self.config.encoder_weight or source is None or self.training or self._feeds_back:
            return query_embeddings
        return normalize(query_embeddings + self.config.encoder_weight * source.encoder_vector(), dim=-1)

    def _emit_at_once(
        self, count: int, prefix_ids: torch.Tensor | None, inputs: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Like `_autoregress`, but learned query tokens follow the question in place of fed-back vectors."""
        tokens = self.query_tokens.weight[:count].to(inputs.dtype).expand(len(inputs), -1, -1)
        states = self._read_at_once(prefix_ids, inputs, mask, tokens)
        return states[:, :-count], states[:, -count:]

    def _autoregress(
        self,
        count: int,
        inputs: torch.Tensor,
        mask: torch.Tensor,
        source: _Source | None,
        teacher: _Teacher,
        questions: _Questions,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states at the question, `(batch, length, hidden)`, and those of the vectors, `(batch, count, hidden)`.

        Every vector's state, except the first, has read the previous vector.
        """
        prefix_ids = questions["prefix_ids"]
        if self.training and not self._gradients_may_pass_the_cache():
            fed = None
            if count > 1:
                fed = self._project(self._predict_to_feed_back(count - 1, teacher, questions))
            states, end = self._read_at_once(prefix_ids, inputs, mask, fed), inputs.shape[1]
            return states[:, :end], states[:, end - 1 :]
        cache, mask = self._read_prefix(prefix_ids, mask)
        question = self._read(inputs, mask, cache)
        source = source and source.at(question)
        decode = self._roll_out if self.training else self._decode
        return question, decode(question[:, -1:], count, mask, cache, source, teacher)

    def _check_inputs(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        input_vectors: torch.Tensor | None,
        input_mask: torch.Tensor | None,
        num_query_vectors: int,
    ) -> None:
        if not isinstance(num_query_vectors, Integral) or num_query_vectors < 1:
            raise ValueError(f"num_query_vectors must be an integer of at least 1, got {num_query_vectors!r}.")
        if self.config.emission == "one_pass" and num_query_vectors > self.config.max_query_vectors:
            raise ValueError(
                f"This model has {self.config.max_query_vectors} query tokens (max_query_vectors): it cannot emit "
                f"{num_query_vectors} vectors. Ask for fewer."
            )
        if self.config.splits_questions and num_query_vectors != 1:
            raise ValueError(
                f"This model splits questions and emits one vector per input, not {num_query_vectors}: pass "
                "each part by itself, or call encode_query."
            )
        if (input_ids is not None) != self.config.reads_text:
            raise ValueError(
                "This model reads its questions as text: pass input_ids."
                if self.config.reads_text
                else "This model reads vectors only: it has no prompt_template, so it takes no input_ids."
            )
        if (input_vectors is not None) != self.config.reads_vectors:
            raise ValueError(
                "This model also reads the document encoder's embedding of each question: "
                "pass input_vectors (batch, dim), or search with amer.search.Searcher, which computes them."
                if self.config.reads_vectors
                else "This model is not anchored and reads text only: it takes no input_vectors."
            )
        if attention_mask is not None and not attention_mask[:, -1].all():
            raise ValueError(
                "attention_mask ends in 0: pad on the left, because the decoder continues from the last position."
            )
        if input_vectors is None:
            return
        tokens, dim = self.config.token_vectors, self.config.document_dim
        if input_vectors.dim() != 2 + tokens or input_vectors.shape[-1] != dim:
            expected = f"(batch, {'length, ' if tokens else ''}{dim})"
            raise ValueError(f"input_vectors have shape {tuple(input_vectors.shape)}, expected {expected}.")
        if input_mask is not None and (input_mask.shape != input_vectors.shape[:2] or not input_mask[:, -1].all()):
            raise ValueError("input_mask must have the token vectors' shape (batch, length), padded on the left.")

    def _check_room(self, length: int) -> None:
        """Raise ValueError if prompt, question and query vectors need more positions than the decoder has."""
        most = positions_of(self.config)
        if most is not None and length > most:
            raise ValueError(f"Prompt, question and query vectors take {length} positions, the decoder has {most}.")

    def _embed(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        input_vectors: torch.Tensor | None,
        input_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Input embeddings `(batch, length, hidden)` and mask `(batch, length)` of the text, the vectors, or both."""
        parts, masks = [], []
        if input_ids is not None:
            parts.append(self.get_input_embeddings()(input_ids))
            masks.append(torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        if input_vectors is not None and input_mask is not None:  # both are given, or neither
            parts.append(self._project(input_vectors if self.config.token_vectors else input_vectors[:, None]))
            masks.append(input_mask)
        inputs, mask = torch.cat(parts, dim=1), torch.cat(masks, dim=1)
        if len(parts) == 2 and self.config.token_vectors:  # no padding between text and vectors
            order = mask.argsort(dim=1, stable=True)
            inputs, mask = inputs.gather(1, order[:, :, None].expand_as(inputs)), mask.gather(1, order)
        return inputs, mask

    def _source(self, input_vectors: torch.Tensor | None, input_mask: torch.Tensor | None) -> _Source | None:
        """The vectors from which an anchored model makes its anchors; None for other models."""
        if self.config.anchor is None or input_vectors is None or input_mask is None:
            return None
        vectors = input_vectors.float()
        if self.config.anchor == "vector":
            if self.config.token_vectors:
                vectors = (vectors * input_mask[:, :, None]).sum(dim=1)
            vectors, input_mask = normalize(vectors, dim=-1)[:, None], input_mask[:, -1:]
        return _Source(vectors, input_mask)

    def _window_ends_within(self, prefix_ids: torch.Tensor, input_ids: torch.Tensor, further: int) -> bool:
        """Whether a sliding window is shorter than the input; it counts padding, so no padding may lie inside."""
        window = getattr(self.config.text_config, "sliding_window", None)
        length = prefix_ids.shape[1] + input_ids.shape[1] + further
        return window is not None and window < length

    def _read_prefix(self, prefix_ids: torch.Tensor | None, mask: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
        """A cache that holds the shared prefix, and the mask extended by it; the prefix stays cached across calls."""
        if prefix_ids is None:
            return DynamicCache(config=self.backbone.config), mask

        def read(cache: DynamicCache) -> None:
            self._read(self.get_input_embeddings()(prefix_ids), torch.ones_like(prefix_ids), cache)

        cache = self._prompt_cache.read(self.backbone, prefix_ids, len(mask), read)
        return cache, torch.cat([mask.new_ones(len(mask), prefix_ids.shape[1]), mask], dim=1)

    def _read(self, inputs: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
        """Hidden states `(batch, length, hidden)` of the new inputs; the mask also covers the cached positions."""
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        return self.backbone(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def _emit(self, hidden: torch.Tensor, source: _Source | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Hidden states `(batch, n, hidden)` -> query embeddings `(batch, n, dim)` and the token anchor's weights."""
        correction = self.output_projection(hidden / self.scale)
        if source is None:
            return normalize(correction, dim=-1), None
        anchor, weights = source.vectors, None
        if self.config.anchor == "tokens":
            anchor, weights = self.token_anchor(hidden, *source)
        return normalize(correction + anchor, dim=-1), weights

    def _project(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors `(batch, n, dim)` -> inputs of the decoder `(batch, n, hidden)`."""
        return self.input_projection(vectors).to(self.get_input_embeddings().weight.dtype)

    def _decode(
        self,
        first: torch.Tensor,
        count: int,
        mask: torch.Tensor,
        cache: DynamicCache,
        source: _Source | None,
        teacher: _Teacher,
    ) -> torch.Tensor:
        """Emit one vector after another and read each: `(batch, 1, hidden)` -> `(batch, count, hidden)`."""
        states = [first]
        for step in range(count - 1):
            predicted, _ = self._emit(states[-1], source)
            mask = _extended(mask, 1)
            states.append(self._read(self._project(teacher.choose(predicted, step)), mask, cache))
        return torch.cat(states, dim=1)

    def _roll_out(
        self,
        first: torch.Tensor,
        count: int,
        mask: torch.Tensor,
        cache: DynamicCache,
        source: _Source | None,
        teacher: _Teacher,
    ) -> torch.Tensor:
        """`_decode` for training: predict without gradient, then read all fed-back vectors in one pass."""
        if count == 1:
            return first

        def predict() -> torch.Tensor:
            states = self._decode(first, count - 1, mask, twin_of(cache, torch.Tensor.detach), source, teacher)
            return self._emit(states, source)[0]

        with torch.no_grad():
            fed = teacher.feed(count - 1, predict)
        rest = self._read(self._project(fed), _extended(mask, count - 1), cache)
        return torch.cat([first, rest], dim=1)

    def _gradients_may_pass_the_cache(self) -> bool:
        """False under gradient checkpointing and under FSDP2.

        With gradient checkpointing, layers silently drop the cache. FSDP2 gathers sharded weights for gradients that
        enter a layer through its output, but not for those that enter through the cache.
        """
        checkpointing = any(getattr(part, "gradient_checkpointing", False) for part in self.modules())
        sharded = any(kind.__name__ == "FSDPModule" for kind in type(self).__mro__)
        return not checkpointing and not sharded

    def _predict_to_feed_back(self, count: int, teacher: _Teacher, questions: _Questions) -> torch.Tensor:
        """The vectors to feed back, `(batch, count, dim)`, predicted in evaluation mode, which has a cache."""

        def predict() -> torch.Tensor:
            return self.forward(
                **questions,
                num_query_vectors=count,
                teacher_vectors=teacher.vectors,
                teacher_mask=teacher.mask,
                return_dict=False,
            )[0]

        self.eval()
        self._feeds_back = True
        try:
            with torch.no_grad():
                fed = teacher.feed(count, predict)
        finally:
            self._feeds_back = False
            self.train()
        torch.clear_autocast_cache()  # older torch would reuse casts made without gradient
        return fed

    def _read_at_once(
        self, prefix_ids: torch.Tensor | None, inputs: torch.Tensor, mask: torch.Tensor, appended: torch.Tensor | None
    ) -> torch.Tensor:
        """Read the questions and the appended inputs `(batch, n, hidden)` in one pass.

        The pass uses the prompt cache only if no gradient can flow.

        Returns:
            The states `(batch, length + n, hidden)` at the question without the prefix and at each appended input.
        """
        count = 0 if appended is None else appended.shape[1]
        if prefix_ids is not None and appended is not None and not self.training and not torch.is_grad_enabled():
            cache, mask = self._read_prefix(prefix_ids, mask)
            return self._read(torch.cat([inputs, appended], dim=1), _extended(mask, count), cache)
        parts, mask = [inputs], _extended(mask, count)
        if prefix_ids is not None:
            parts.insert(0, self.get_input_embeddings()(prefix_ids).expand(len(mask), -1, -1))
            mask = torch.cat([mask.new_ones(len(mask), prefix_ids.shape[1]), mask], dim=1)
        if appended is not None:
            parts.append(appended)
        return self._read(torch.cat(parts, dim=1), mask, None)[:, -inputs.shape[1] - count :]

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: without the document encoder, which loads again. transformers leaves local functions in it."""
        return {**self.__dict__, "_encoder": None}

    def train(self, mode: bool = True) -> Self:
        """Set training mode. Training drops the cached prompt, because the weights will change."""
        if mode:
            self._prompt_cache.drop()
        return super().train(mode)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if self.config.anchored and module is self.output_projection:
            init.zeros_(module.weight)  # the untrained output is the anchor
        if self.config.anchor == "tokens":
            if module is self.token_anchor.query:
                init.zeros_(module.weight)  # the untrained anchor is the mean of the tokens
            if module in (self.token_anchor.key, self.token_anchor.state_key):
                init.normal_(module.weight, std=module.in_features**-0.5)


def _with_prefix(
    prefix_ids: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask `(batch, all)` with the prefix before every question, and all padding before the prefix."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    prefix = prefix_ids.expand(len(input_ids), -1)
    ids, mask = torch.cat([prefix, input_ids], dim=1), torch.cat([torch.ones_like(prefix), mask], dim=1)
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def _extended(mask: torch.Tensor, count: int) -> torch.Tensor:
    """The mask with `count` more positions, all ones."""
    return torch.cat([mask, mask.new_ones(len(mask), count)], dim=1)
