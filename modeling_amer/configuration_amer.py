"""Configuration of an AMER model: its decoder, its outputs and the document encoder it was trained with."""

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
# The attention a downloaded configuration may choose; transformers would fetch any other name from the Hub as code.
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
ATTENTION_FIELDS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


class AMERConfig(PreTrainedConfig):
    """All settings that rebuild an [`AMERModel`] and search with it.

    Args:
        text_config: Configuration of the decoder: an object, or a dictionary that includes `model_type`.
        base_model_name_or_path: Source of the frozen decoder. None: the decoder starts from random weights.
        base_model_revision: Commit of the base on which the adapter was trained.
        document_dim: Size of the frozen document embeddings.
        num_query_vectors: Default number of query vectors (m_pred of paper §4.2).
        max_query_length: Number of tokens the model reads of a question. It truncates longer questions, with a
            warning. The limit is lower if the decoder has too few positions.
        prompt_template: The whole prompt with its special tokens; `{query}` marks the place of the question. None: the
            model reads vectors only (the synthetic study, paper §5).
        document_encoder: Identity of the document encoder: `name`, `revision`, `document_prompt`, `query_prompt`.
        lora: Keyword arguments of `peft.LoraConfig`. None: training updates the whole decoder.
        weights: "adapter": a saved model holds LoRA and projections only. "full": it holds every weight.
        anchor: The document encoder's vector to which each output adds a correction. An untrained anchored model
            returns that vector itself.
            "vector": `normalise(v + W h_j)`, where v is the encoder's vector of the whole question.
            "tokens": `normalise(sum_t a_jt v_t + W h_j)`, where v_t are the encoder's vectors of the question's
            tokens (see [`TokenAnchor`]). Each output can then represent one part of the question.
            None: `normalise(W h_j)`.
        token_vectors: The decoder reads the encoder's token vectors, one per position, in place of a single vector of
            the question. Token anchors always need this.
        emission: "autoregressive": the model reads each output before it makes the next (as in the paper).
            "one_pass": learned query tokens follow the question, and one pass makes all outputs.
        max_query_vectors: Largest number of outputs: the limit of "auto", and the number of learned query tokens.
            Default: `num_query_vectors`.
        stop_score: After each output the model predicts whether it was the last. It can then choose m ("auto").
        splits_questions: The model finds the parts of a question, reads each part by itself, and makes one vector per
            part ("auto"). Such a model reads token vectors only.
        context_weight: Weight of the encoder's vector of the whole question, added to the unit vector of each part by
            a model that splits questions. Shared context ("in pandas, ...") often lies outside the parts.
        encoder_weight: Weight of the encoder's own vector, added to each unit vector of an anchored model, except in
            training. It restores knowledge of the encoder that a decoder trained on few questions has lost.
        objective: Training objective; it decides how search fuses the result lists: "matched" (round-robin) or
            "mixture" (logsumexp at `loss_temperature`).
        loss_temperature: tau of the training loss (Eq. 1).
        checksums: sha256 of each weights file. `save_pretrained` writes it, `from_pretrained` checks it.
        initializer_range: Standard deviation of the untrained projections.

    Raises:
        ValueError: A size below one, an unknown choice, more `num_query_vectors` than query tokens, a template
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
        # Versions up to 0.1.0 had one kind of anchor, which `anchored` turned on.
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
        kwargs.pop("sealed", None)  # a field of the saved file only (`checksums_amer.seal`)
        super().__init__(**kwargs)
        self._check()

    @property
    def reads_text(self) -> bool:
        """Whether the decoder reads the text of a question."""
        return self.prompt_template is not None

    @property
    def anchored(self) -> bool:
        """Whether the outputs are corrections of the document encoder's vectors."""
        return self.anchor is not None

    @property
    def reads_vectors(self) -> bool:
        """Whether the decoder reads a vector or token vectors of a question, alone or after its text."""
        return self.anchored or self.token_vectors or not self.reads_text

    @property
    def takes_text(self) -> bool:
        """Whether questions are given as text: the decoder reads it, or the encoder's token vectors of it."""
        return self.reads_text or self.token_vectors

    @property
    def needs_question_vectors(self) -> bool:
        """Whether the model reads the document encoder's vector of each question (`input_vectors`) beside its text."""
        return self.anchored and not self.token_vectors

    @property
    def chooses_number(self) -> bool:
        """Whether the model can choose the number of vectors for a question ("auto")."""
        return self.stop_score or self.splits_questions

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the saved fields; return them with the unused arguments.

        If a save was interrupted, this method reads the complete new save.

        Raises:
            OSError: There is no configuration, or it is not JSON.
            ValueError: The configuration names an attention that transformers would fetch from the Hub.
        """
        kwargs["subfolder"] = place_of_save(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        try:
            fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        except OSError as error:
            if str(pretrained_model_name_or_path) in str(error):
                raise
            raise OSError(
                f"{pretrained_model_name_or_path} is neither a folder with a model nor a model on the Hub that this "
                f"machine can read. ({error})"
            ) from error
        check_attention(fields, str(pretrained_model_name_or_path))
        return fields, kwargs

    def to_dict(self) -> dict[str, Any]:
        """All fields for JSON, without the decoder's local folder and its quantization on this machine."""
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
            raise ValueError("encoder_weight works with anchored models only: set anchor, or leave it at 0.")
        if self.weights not in ("adapter", "full"):
            raise ValueError(f'weights must be "adapter" or "full", got {self.weights!r}.')
        for name, allowed in (("objective", OBJECTIVES), ("anchor", ANCHORS), ("emission", EMISSIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {getattr(self, name)!r}.")
        if self.emission == "one_pass" and self.max_query_vectors < self.num_query_vectors:
            raise ValueError(
                f"max_query_vectors ({self.max_query_vectors}) must be at least num_query_vectors "
                f"({self.num_query_vectors}) for one-pass emission."
            )
        alone = self.token_vectors and not self.reads_text and not self.stop_score
        if self.splits_questions and not (alone and self.emission == "autoregressive"):
            raise ValueError(
                "A model that splits questions reads token vectors alone: set token_vectors=True, leave out "
                'prompt_template and stop_score, and use emission="autoregressive".'
            )
        if (self.weights == "adapter") != (self.lora is not None):
            raise ValueError('weights="adapter" needs a `lora` dictionary; weights="full" needs lora=None.')
        if self.prompt_template is not None and self.prompt_template.count("{query}") != 1:
            raise ValueError(f"prompt_template must hold {{query}} exactly once, got {self.prompt_template!r}.")


def check_attention(fields: Any, where: str) -> None:
    """Refuse a downloaded configuration that makes transformers fetch attention code from the Hub.

    Args:
        fields: Fields of a config.json, at any depth.
        where: Its source, used in the message.

    Raises:
        ValueError: It names an attention that is not one of `ATTENTION`.
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
                        f"the Hub as code. It may be one of {', '.join(ATTENTION)}."
                    )
        else:
            check_attention(value, where)


def _decoder_config(model_type: str = "llama", **fields: Any) -> PreTrainedConfig:
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"This version of transformers does not know the decoder {model_type!r}: try a newer version. "
            "AMER does not support decoders with their own code."
        )
    return CONFIG_MAPPING[model_type](**fields)
