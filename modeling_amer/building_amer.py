"""Make a new AMER model, on a pretrained decoder or from scratch; merge LoRA into one."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from transformers import AutoConfig

from .base_amer import commit_of, hub_options_of, lasting_name, load_base, load_tokenizer
from .configuration_amer import AMERConfig
from .lora_amer import merge_lora
from .persistence_amer import AMERPreTrainedModel
from .prompting_amer import default_prompt_template

# Fields of the configuration that `from_base` hands on; `anchored` was the name of anchor="vector" up to 0.1.0.
EMISSION_FIELDS = (
    "anchored", "token_vectors", "emission", "max_query_vectors", "stop_score", "splits_questions", "encoder_weight",
    "max_query_length",
)  # fmt: skip
HEAD_SIZE = 32  # size of the attention heads of a decoder from scratch


class AMERBuilder(AMERPreTrainedModel):
    """Makes a new [`AMERModel`] (`from_base`, `from_scratch`) and merges LoRA (`merge_and_unload`)."""

    @classmethod
    def from_base(
        cls,
        base_model_name_or_path: str,
        document_dim: int,
        num_query_vectors: int = 5,
        lora: dict[str, Any] | None = None,
        anchor: str | None = None,
        reads_text: bool = True,
        prompt_template: str | None = None,
        document_encoder: dict[str, Any] | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build a new AMER model on a pretrained decoder, with untrained projections.

        Args:
            base_model_name_or_path: A decoder LM with its tokenizer, on the Hub or in a folder. The configuration
                records the absolute path of a folder, and a saved adapter needs the base there.
            document_dim: Size of the document embeddings.
            num_query_vectors: m at inference.
            lora: Keyword arguments of `peft.LoraConfig`. None: training updates the whole decoder.
            anchor: See [`AMERConfig`].
            reads_text: False for questions that are vectors only (the synthetic study, paper §5).
            prompt_template: The prompt with `{query}` in it. Default: the paper's instruction in the chat template.
            document_encoder: Identity of the document encoder.
            revision: Commit, tag or branch of the base; the configuration records the commit.
            kwargs: `token_vectors`, `emission`, `max_query_vectors`, `stop_score`, `splits_questions`,
                `encoder_weight` and `max_query_length` of [`AMERConfig`]. All others go to
                `AutoModel.from_pretrained` (`dtype`, `device_map`, `quantization_config`, ...).

        Raises:
            OSError: The base model cannot be found, is not in safetensors, needs its own code, or has no tokenizer.
            ValueError: The LoRA options change weights that an adapter does not save, or `trust_remote_code` is given.
        """
        if kwargs.pop("trust_remote_code", False):
            raise ValueError(
                "AMER does not support a base model that needs its own code: leave out trust_remote_code."
            )
        fields = {name: kwargs.pop(name) for name in EMISSION_FIELDS if name in kwargs}
        hub_options = hub_options_of(kwargs)
        commit = commit_of(base_model_name_or_path, revision, hub_options)
        backbone = load_base(base_model_name_or_path, revision=commit, **kwargs)
        tokenizer = None
        if reads_text:
            options = {**hub_options, "revision": commit, "trust_remote_code": False}
            tokenizer = load_tokenizer(base_model_name_or_path, **options)
            prompt_template = prompt_template or default_prompt_template(tokenizer)
        config = AMERConfig(
            text_config=copy.deepcopy(backbone.config),
            base_model_name_or_path=lasting_name(base_model_name_or_path),
            base_model_revision=commit,
            document_dim=document_dim,
            num_query_vectors=num_query_vectors,
            prompt_template=prompt_template if reads_text else None,
            document_encoder=document_encoder,
            lora=lora,
            weights="full" if lora is None else "adapter",
            anchor=anchor,
            **fields,
        )
        return cls(config, backbone, tokenizer)._place_projections().eval()

    @classmethod
    def from_scratch(
        cls,
        document_dim: int,
        num_query_vectors: int = 4,
        layers: int = 2,
        width: int = 192,
        anchor: str | None = "tokens",
        emission: str = "one_pass",
        stop_score: bool = True,
        max_query_vectors: int | None = None,
        splits_questions: bool = False,
        encoder_weight: float = 0.0,
        document_encoder: dict[str, Any] | None = None,
    ) -> Self:
        """Build AMER-mini: a new model with a small untrained decoder that reads the encoder's token vectors.

        Args:
            document_dim: Size of the document embeddings.
            num_query_vectors: m at inference, unless the model chooses it.
            layers: Number of layers of the decoder.
            width: Hidden size of the decoder, a multiple of 32.
            anchor: See [`AMERConfig`] for this and all following arguments.
            emission: "autoregressive" or "one_pass".
            stop_score: Whether the model can choose m.
            max_query_vectors: Maximum m.
            splits_questions: Whether the model finds the parts of a question and reads each by itself.
            encoder_weight: Weight of the encoder's own vector, added to each vector.
            document_encoder: Identity of the document encoder.

        Raises:
            ValueError: The width is not a multiple of 32, or [`AMERConfig`] refuses the settings.
        """
        if width < HEAD_SIZE or width % HEAD_SIZE:
            raise ValueError(f"width must be a multiple of {HEAD_SIZE}, got {width}.")
        decoder = AutoConfig.for_model(
            "llama",
            vocab_size=1,  # it reads vectors only
            bos_token_id=None,
            eos_token_id=None,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // HEAD_SIZE,
            num_key_value_heads=width // HEAD_SIZE,
        )
        config = AMERConfig(
            text_config=decoder,
            document_dim=document_dim,
            num_query_vectors=num_query_vectors,
            anchor=anchor,
            token_vectors=True,
            emission=emission,
            stop_score=stop_score,
            max_query_vectors=max_query_vectors,
            splits_questions=splits_questions,
            encoder_weight=encoder_weight,
            document_encoder=document_encoder,
        )
        return cls(config).eval()

    @property
    def merges_exactly(self) -> bool:
        """Whether the model has LoRA that `merge_and_unload` can merge without a change of the vectors."""
        whole = self.backbone.dtype == torch.float32 and not getattr(self.backbone, "is_quantized", False)
        return whole and self.config.weights == "adapter"

    def merge_and_unload(self) -> Self:
        """Merge LoRA into the decoder. The result is a plain model that holds every weight.

        Raises:
            ValueError: The model has no LoRA, or its decoder is quantized or in half precision, so that merging would
                change the vectors.
        """
        if self.config.weights != "adapter":
            raise ValueError("This model has no LoRA to merge: it already holds every weight.")
        if not self.merges_exactly:
            raise ValueError(
                f"Merging needs the base in float32, but it is {self.backbone.dtype}: load with dtype=torch.float32."
            )
        merge_lora(self.backbone)
        self.config.weights, self.config.lora = "full", None
        self._refresh_keys_to_ignore()
        return self
