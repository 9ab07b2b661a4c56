"""Configuration of an AMER model: the decoder, the two projections and what they were trained against."""

from __future__ import annotations

import math
import os
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .staging_amer import place_of_save

OBJECTIVES = ("matched", "mixture")
ANCHORS = (None, "vector", "tokens")
EMISSIONS = ("autoregressive", "one_pass")
# What a downloaded configuration may choose: any other name would make transformers fetch a kernel from the Hub.
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
ATTENTION_FIELDS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


class AMERConfig(PreTrainedConfig):
    """What has to be known to rebuild an [`AMERModel`] and to search with it.

    Args:
        text_config: configuration of the decoder, as an object or as its dictionary (which then names `model_type`).
        base_model_name_or_path: where the frozen decoder comes from; None for a decoder of random weights.
        base_model_revision: the commit of the base the adapter was trained on.
        document_dim: size of the frozen document embeddings.
        num_query_vectors: query vectors emitted when the caller does not say how many (m_pred of paper §4.2).
        max_query_length: tokens of a question that are read; of a longer one the first so many, with a warning. Fewer
            where the decoder's positions do not reach.
        prompt_template: the whole prompt, special tokens included, with `{query}` where the question goes;
            None for a model that reads vectors only (the synthetic study, paper §5).
        document_encoder: identity of the documents' encoder: `name`, `revision`, `document_prompt`, `query_prompt`.
        lora: keyword arguments of `peft.LoraConfig`; None trains the whole decoder.
        weights: "adapter" if a saved model holds LoRA and projections only, "full" if it holds every weight.
        anchor: what the document encoder gives each output to start from: untrained, the model *is* that encoder.
            "vector": `normalise(v + W h_j)`, v being the encoder's vector of the whole question;
            "tokens": `normalise(sum_t a_jt v_t + W h_j)`, v_t being its vectors of the question's tokens (see
            [`TokenAnchor`]), so that each output can stand for a part of the question; None: `normalise(W h_j)`.
        token_vectors: the decoder reads the encoder's token vectors, one position each, where it would otherwise read
            one vector of the question, or none. Always so with token anchors.
        emission: "autoregressive": each output is read before the next is made (the paper's); "one_pass": learned
            query tokens follow the question, and all outputs are made at once.
        max_query_vectors: most outputs of a question: what "auto" stops at, and the number of learned query tokens;
            `num_query_vectors` where it is not given.
        stop_score: after each output the model says whether it was the last, so that it can choose m ("auto").
        splits_questions: the model marks the parts of a question and reads each of them by itself: one vector for each
            part ("auto"). It reads token vectors alone.
        context_weight: how much of the encoder's vector of the whole question is added to the unit vector of each of
            its parts, of a model that splits questions. What they share ("in pandas, ...") often stands in no part.
        encoder_weight: how much of the encoder's own vector is added to each unit vector of an anchored model, except
            in training. A decoder that learned from few questions has forgotten some of what the encoder knows.
        objective: what it was trained for, which decides how its result lists are fused: "matched" (round-robin) or
            "mixture" (logsumexp at `loss_temperature`).
        loss_temperature: tau of the training loss (Eq. 1).
        checksums: weights file -> its sha256, written by `save_pretrained` and checked by `from_pretrained`.
        initializer_range: standard deviation of the untrained projections.

    Raises:
        ValueError: a size below one, an unknown choice, more `num_query_vectors` than query tokens, a template
            without exactly one `{query}`, or `splits_questions` with text, a stop score or one-pass emission.
    """

    model_type = "amer"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012  (the name and form transformers looks for)

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        base_model_name_or_path: str | None = None,
        base_model_revision: str | None = None,
        document_dim: int = 1024,
        num_query_vectors: int = 5,
        prompt_template: str | None = None,
        document_encoder: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        weights: str = "full",
        anchor: str | None = None,
        token_vectors: bool = False,
        emission: str = "autoregressive",
        max_query_vectors: int | None = None,
        stop_score: bool = False,
        splits_questions: bool = False,
        context_weight: float = 0.5,
        encoder_weight: float = 0.0,
        objective: str = "matched",
        loss_temperature: float = 0.05,
        checksums: dict[str, str] | None = None,
        initializer_range: float = 0.02,
        max_query_length: int = 512,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = dict(text_config)
            text_config = _decoder_config(**text_config)
        self.text_config = CONFIG_MAPPING["llama"]() if text_config is None else text_config
        self.base_model_name_or_path = base_model_name_or_path
        self.base_model_revision = base_model_revision
        self.document_dim = document_dim
        self.num_query_vectors = num_query_vectors
        self.prompt_template = prompt_template
        self.document_encoder = document_encoder
        self.lora = lora
        self.weights = weights
        # Up to 0.1.0 there was one anchor, and `anchored` said whether the model has it.
        self.anchor = "vector" if kwargs.pop("anchored", False) and anchor is None else anchor
        self.token_vectors = token_vectors or anchor == "tokens"
        self.emission = emission
        self.max_query_vectors = num_query_vectors if max_query_vectors is None else max_query_vectors
        self.stop_score = stop_score
        self.splits_questions = splits_questions
        self.context_weight = context_weight
        self.encoder_weight = encoder_weight
        self.objective = objective
        self.loss_temperature = loss_temperature
        self.checksums = checksums
        self.initializer_range = initializer_range
        self.max_query_length = max_query_length
        kwargs.pop("sealed", None)  # of the file (`checksums_amer.seal`), not of what is made of it
        super().__init__(**kwargs)
        self._check()

    @property
    def reads_text(self) -> bool:
        """Whether a question reaches the decoder as text."""
        return self.prompt_template is not None

    @property
    def anchored(self) -> bool:
        """Whether the outputs start from vectors of the document encoder."""
        return self.anchor is not None

    @property
    def reads_vectors(self) -> bool:
        """Whether a question reaches the decoder as a vector or as token vectors, alone or after its text."""
        return self.anchored or self.token_vectors or not self.reads_text

    @property
    def chooses_number(self) -> bool:
        """Whether the model can say how many vectors a question needs ("auto")."""
        return self.stop_score or self.splits_questions

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The saved fields, of a save that was cut short its complete ones, and the arguments that are left.

        Raises:
            OSError: there is no configuration, or it is not JSON.
            ValueError: it chooses an attention that transformers would fetch from the Hub.
        """
        kwargs["subfolder"] = place_of_save(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        try:
            fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except OSError as error:
            if str(pretrained_model_name_or_path) in str(error):
                raise
            raise OSError(
                f"{pretrained_model_name_or_path} is neither a folder with a model nor a model on the Hub that can be "
                f"read from here. ({error})"
            ) from error
        check_attention(fields, str(pretrained_model_name_or_path))
        return fields, kwargs

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON holds them, without the folder the decoder came from and how it was quantized here."""
        fields = super().to_dict()
        for name in ("_name_or_path", "quantization_config"):
            fields["text_config"].pop(name, None)
        return fields

    def _check(self) -> None:
        for name in ("document_dim", "num_query_vectors", "max_query_vectors", "max_query_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
        for name in ("context_weight", "encoder_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {getattr(self, name)!r}.")
        if self.encoder_weight and not self.anchored:
            raise ValueError("encoder_weight adds the encoder's vector to outputs of anchored models: set anchor.")
        if self.weights not in ("adapter", "full"):
            raise ValueError(f'weights must be "adapter" or "full", got {self.weights!r}.')
        for name, allowed in (("objective", OBJECTIVES), ("anchor", ANCHORS), ("emission", EMISSIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {getattr(self, name)!r}.")
        if self.emission == "one_pass" and self.max_query_vectors < self.num_query_vectors:
            raise ValueError(
                f"num_query_vectors is {self.num_query_vectors}: max_query_vectors cannot be {self.max_query_vectors}."
            )
        alone = self.token_vectors and not self.reads_text and not self.stop_score
        if self.splits_questions and not (alone and self.emission == "autoregressive"):
            raise ValueError(
                "A model that splits questions reads token vectors alone (token_vectors, no prompt_template), without "
                'stop_score, and emission is "autoregressive".'
            )
        if (self.weights == "adapter") != (self.lora is not None):
            raise ValueError('weights="adapter" goes with a `lora` dictionary, weights="full" without one.')
        if self.prompt_template is not None and self.prompt_template.count("{query}") != 1:
            raise ValueError(f"prompt_template must hold {{query}} exactly once, got {self.prompt_template!r}.")


def check_attention(fields: Any, where: str) -> None:
    """Refuse a downloaded configuration whose attention transformers would fetch from the Hub, as code.

    Args:
        fields: of a config.json, at any depth.
        where: it was read, for the message.

    Raises:
        ValueError: it names an attention that is not one of `ATTENTION`.
    """
    if isinstance(fields, list):
        for part in fields:
            check_attention(part, where)
    if not isinstance(fields, dict):
        return
    for name, value in fields.items():
        if name in ATTENTION_FIELDS:
            for chosen in value.values() if isinstance(value, dict) else [value]:
                if chosen is not None and chosen not in ATTENTION:
                    raise ValueError(
                        f"The config.json of {where} sets {name} to {chosen!r}, which transformers would fetch from "
                        f"the Hub: it may be one of {', '.join(ATTENTION)}."
                    )
        else:
            check_attention(value, where)


def _decoder_config(model_type: str = "llama", **fields: Any) -> PreTrainedConfig:
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"This version of transformers does not know the decoder {model_type!r}; a newer one may. "
            "Decoders that bring their own code are not supported."
        )
    return CONFIG_MAPPING[model_type](**fields)
