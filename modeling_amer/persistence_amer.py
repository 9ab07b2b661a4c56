"""Build an AMER model from a base, load and save it in a folder, and publish it on the Hub.

A saved adapter holds LoRA and projections. Loading it fetches the frozen base from its original source, at the commit
that the adapter was trained on. Weights that do not fit are an error, because a retriever with random weights in it
looks like a working one.
"""

from __future__ import annotations

import copy
import errno
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import torch
from huggingface_hub import CommitInfo
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, extract_commit_hash, logging

from .checksums_amer import check_floats, check_sealed, check_sha256, check_weights_name, seal, sha256
from .configuration_amer import AMERConfig, check_attention
from .probe_amer import PROBE_FILE, Probe
from .prompting_amer import default_prompt_template
from .publishing_amer import card_for_push, check_names, files_in, forget_local_base, is_public, push_files
from .staging_amer import REPLACED, place_of_save, saved_file, staged

logger = logging.get_logger(__name__)

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "proxies")  # shared by adapter and base
# Fields of the configuration that `from_base` hands on; `anchored` was the name of anchor="vector" up to 0.1.0.
EMISSION_FIELDS = (
    "anchored", "token_vectors", "emission", "max_query_vectors", "stop_score", "splits_questions", "encoder_weight",
    "max_query_length",
)  # fmt: skip
AUTO_CLASS_OPTIONS = ("_from_auto", "_from_pipeline", "adapter_kwargs")
EXACT_LORA_STARTS = (True, False, "gaussian", "orthogonal")  # other values change the base, which is not saved
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
OWN_PARTS = (
    "input_projection", "output_projection", "token_anchor", "query_tokens", "stop_projection", "part_labeller",
)  # fmt: skip
HEAD_SIZE = 32  # size of the attention heads of a decoder from scratch
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, exceeded quota, exceeded file size
NOTHING = type(None)
FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "text_config": (dict,),
    **dict.fromkeys(("lora", "document_encoder", "checksums"), (dict, NOTHING)),
    **dict.fromkeys(("document_dim", "num_query_vectors", "max_query_length"), (int,)),
    "max_query_vectors": (int, NOTHING),
    **dict.fromkeys(("loss_temperature", "initializer_range", "context_weight", "encoder_weight"), (int, float)),
    **dict.fromkeys(("prompt_template", "base_model_name_or_path", "base_model_revision", "anchor"), (str, NOTHING)),
    **dict.fromkeys(("token_vectors", "stop_score", "splits_questions"), (bool,)),
}
CODE = {
    file.name: sha256(file) for file in sorted(Path(__file__).parent.glob("*_amer.py"))
}  # the code that was imported
ONE_FILE = 2**62  # bytes: an adapter is never cut into shards


class AMERPreTrainedModel(PreTrainedModel):
    """Builds, loads, saves and publishes [`AMERModel`], which adds the computation."""

    config_class = AMERConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = [*OWN_PARTS]  # noqa: RUF012  (a list: 5.0 drops a set)

    # Attributes of AMERModel, the only subclass.
    config: AMERConfig
    backbone: PreTrainedModel
    input_projection: nn.Linear
    output_projection: nn.Linear
    tokenizer: PreTrainedTokenizerBase | None
    document_encoder_path: str | None
    document_encoder_dtype: torch.dtype | None
    encode_query: Callable[..., Any]
    _encoder_options: dict[str, Any]

    if TYPE_CHECKING:

        def to(self, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]  # transformers' wrapper hides its type
            ...

    # ------------------------------------------------------------------------------------------------- building

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
            base_model_name_or_path: a decoder LM with its tokenizer, on the Hub or in a folder. The configuration
                records the absolute path of a folder, and a saved adapter needs the base there.
            document_dim: size of the document embeddings.
            num_query_vectors: m at inference.
            lora: keyword arguments of `peft.LoraConfig`. None: training updates the whole decoder.
            anchor: see [`AMERConfig`].
            reads_text: False for questions that are vectors only (the synthetic study, paper §5).
            prompt_template: the prompt with `{query}` in it. Default: the paper's instruction in the chat template.
            document_encoder: identity of the document encoder.
            revision: commit, tag or branch of the base; the configuration records the commit.
            kwargs: `token_vectors`, `emission`, `max_query_vectors`, `stop_score`, `splits_questions`,
                `encoder_weight` and `max_query_length` of [`AMERConfig`]. All others go to
                `AutoModel.from_pretrained` (`dtype`, `device_map`, `quantization_config`, ...).

        Raises:
            OSError: the base model cannot be found, is not in safetensors, or has no tokenizer.
            ValueError: the LoRA options change weights that an adapter does not save, or the base needs its own code.
        """
        if kwargs.pop("trust_remote_code", False):
            raise ValueError(
                "AMER does not support a base model that needs its own code: leave out trust_remote_code."
            )
        fields = {name: kwargs.pop(name) for name in EMISSION_FIELDS if name in kwargs}
        hub_options = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        commit = _commit(base_model_name_or_path, revision, hub_options)
        backbone = _load_base(base_model_name_or_path, revision=commit, **kwargs)
        tokenizer = None
        if reads_text:
            options = {**hub_options, "revision": commit, "trust_remote_code": False}
            tokenizer = _load_tokenizer(base_model_name_or_path, **options)
            prompt_template = prompt_template or default_prompt_template(tokenizer)
        config = AMERConfig(
            text_config=copy.deepcopy(backbone.config),
            base_model_name_or_path=_lasting_name(base_model_name_or_path),
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
            document_dim: size of the document embeddings.
            num_query_vectors: m at inference, unless the model chooses it.
            layers: number of layers of the decoder.
            width: hidden size of the decoder, a multiple of 32.
            anchor: see [`AMERConfig`] for this and all following arguments.
            emission: "autoregressive" or "one_pass".
            stop_score: whether the model can choose m.
            max_query_vectors: maximum m.
            splits_questions: whether the model finds the parts of a question and reads each by itself.
            encoder_weight: weight of the encoder's own vector, added to each vector.
            document_encoder: identity of the document encoder.

        Raises:
            ValueError: the width is not a multiple of 32, or [`AMERConfig`] refuses the settings.
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

    def _add_lora(self) -> None:
        lora = self.config.lora or {}
        start = lora.get("init_lora_weights", True)
        if start not in EXACT_LORA_STARTS:
            raise ValueError(
                f"init_lora_weights={start!r} changes the base's weights, which an adapter does not save: choose "
                f"one of {EXACT_LORA_STARTS}."
            )
        self.backbone.requires_grad_(False)
        # The backbone's `add_adapter` would need a newer PEFT with every version of transformers.
        inject_adapter_in_model(LoraConfig(**lora), self.backbone)
        for name, parameter in self.backbone.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
            elif parameter.requires_grad:
                raise ValueError(
                    f"With lora={lora} training would update the decoder's {name}, but an adapter holds LoRA "
                    "matrices only: leave out `bias` and `modules_to_save`, or train the whole decoder (lora=None)."
                )

    def _refresh_keys_to_ignore(self) -> None:
        """Keep the frozen base out of saved adapters, and let the Trainer resume without it."""
        frozen = (key for key in self.state_dict() if key.startswith("backbone.") and "lora_" not in key)
        self._keys_to_ignore_on_save = set(frozen) if self.config.weights == "adapter" else set()

    def _place_projections(self) -> Self:
        device = self.get_input_embeddings().weight.device
        for name in OWN_PARTS:
            if hasattr(self, name):
                getattr(self, name).to(device)
        return self

    # -------------------------------------------------------------------------------------------------- loading

    @overload  # type: ignore[override]  # transformers takes any configuration, and does not say what it gives
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        config: AMERConfig | None = None,
        revision: str | None = None,
        subfolder: str = "",
        verify: bool = False,
        output_loading_info: Literal[False] = False,
        document_encoder_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        config: AMERConfig | None = None,
        revision: str | None = None,
        subfolder: str = "",
        verify: bool = False,
        output_loading_info: bool = False,
        document_encoder_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Load a trained model. For an adapter, this also loads its base at the pinned commit.

        Loading writes nothing except notes on large files in the user's cache. If a save into the folder was
        interrupted, this method reads the new model if it is complete, else the old one.

        Keyword arguments override fields of the configuration. The pinned commit does not apply to another
        `base_model_name_or_path`; `base_model_revision` may name its revision, whose commit is then pinned. The
        decoder has the precision it was trained in, unless `dtype` gives another. `revision` and `subfolder` apply to
        this model only; `token`, `cache_dir` and `local_files_only` also apply to the base; all other options
        (`device_map`, `attn_implementation`, `quantization_config`, ...) apply to the decoder. Custom code of a base
        model never runs, even with `trust_remote_code`.

        Args:
            verify: read every weights file again, even if the cache knows it (see `checksums_amer.py`). Also encode
                the model's probe, and refuse a model that does not reproduce it (see [`Probe`]).
            document_encoder_path: folder of the document encoder's weights, which an anchored model needs to read
                questions in text. Default: the Hub, at the first such question.

        Raises:
            OSError: a file of the model or its base is missing, or differs from the saved file; the message names it.
            ValueError: the weights file lacks a tensor, or has an unknown one or one of another shape; or the model
                does not reproduce its probe.
        """
        _check_options(config, kwargs)
        _check_code(pretrained_model_name_or_path)
        where = pretrained_model_name_or_path
        place: dict[str, Any] = {"revision": revision, "subfolder": place_of_save(where, subfolder)}
        hub_options = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        decoder_options: dict[str, Any] = {
            key: kwargs.pop(key) for key in ("dtype", "attn_implementation") if key in kwargs
        }
        attention = getattr(config, "_attn_implementation_internal", None)
        if attention is not None:  # AutoModel keeps the choice in the configuration
            decoder_options.setdefault("attn_implementation", attention)
        try:
            saved, _ = AMERConfig.get_config_dict(where, **place, **hub_options)
        except (OSError, RecursionError) as error:
            raise OSError(
                f"The AMER model {str(where)!r} could not be opened: give a folder with a model, or the name of a "
                f"model on the Hub that this machine can reach. ({error})"
            ) from error
        if saved.get("model_type") != "amer":  # a folder without config.json would get a configuration of defaults
            raise OSError(
                f"{where} holds no AMER model: its config.json is missing or has the model_type "
                f"{saved.get('model_type')!r}, not 'amer'."
            )
        _check_types(where, saved)
        if config is None:
            try:
                config, kwargs = AMERConfig.from_pretrained(where, return_unused_kwargs=True, **place, **kwargs)
            except (TypeError, AttributeError, KeyError) as error:
                raise ValueError(f"The config.json of {where} has a field of the wrong type ({error}).") from error
        check_files(where, saved, verify, **place, **hub_options)
        if config.weights == "full":
            options = {**hub_options, **kwargs, **decoder_options, **place, "revision": revision or "main"}
            options |= {"use_safetensors": True, "output_loading_info": True}
            options |= {"ignore_mismatched_sizes": True}  # mismatched sizes are refused below, by name
            loading: Any = super().from_pretrained(where, *model_args, config=config, **options)
            model, info = loading  # a pair, although transformers annotates a model
            _refuse(where, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
        else:
            model = cls._on_base(config, saved, hub_options, {**hub_options, **kwargs, **decoder_options})
            info = model._load_adapter(saved_file(where, WEIGHTS_FILE, **place, **hub_options))
        config.name_or_path = str(where)
        model.document_encoder_path = None if document_encoder_path is None else str(document_encoder_path)
        model._encoder_options = hub_options
        if config.prompt_template is not None:
            options = {**place, **hub_options, "config": config.text_config}
            model.tokenizer = _load_tokenizer(where, **options)
        if verify:
            _check_probe(model, Probe.from_pretrained(where, **place, **hub_options))
        return (model, info) if output_loading_info else model

    @classmethod
    def _on_base(
        cls, config: AMERConfig, saved: dict[str, Any], hub_options: dict[str, Any], options: dict[str, Any]
    ) -> Self:
        """A model with untrained LoRA on the configuration's base, which may differ from the saved one."""
        base, commit = config.base_model_name_or_path, config.base_model_revision
        if base != saved.get("base_model_name_or_path") and commit == saved.get("base_model_revision"):
            commit = None  # the pinned commit belongs to the saved base
        config.base_model_revision = commit = _commit(base, commit, hub_options)
        options = {"dtype": config.text_config.dtype or "auto", **options, "revision": commit}
        return cls(config, _load_base(base, **options))._place_projections().eval()

    def _load_adapter(self, file: str) -> dict[str, Any]:
        try:
            state = load_file(file)
        except SafetensorError as error:
            raise OSError(
                f"{file} is truncated or not a safetensors file ({error}): fetch or save it again."
            ) from error
        own = self.state_dict()
        missing = [key for key in own if key not in state and key not in (self._keys_to_ignore_on_save or ())]
        unexpected = [key for key in state if key not in own]
        mismatched = [key for key in state if key in own and state[key].shape != own[key].shape]
        _refuse(file, missing, unexpected, mismatched)
        self.load_state_dict(state, strict=False)
        return {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}

    # --------------------------------------------------------------------------------------------------- saving

    def save_pretrained(  # type: ignore[override]  # arguments without effect here are taken by name only
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        **kwargs: Any,
    ) -> None:
        """Save all files that `AutoModel.from_pretrained(..., trust_remote_code=True)` needs, in one step.

        The files are configuration, code, weights, tokenizer and a probe; an adapter is saved without its base. Other
        files in the folder stay, except an `adapter/` of earlier weights. To save the decoder's LoRA in PEFT's format,
        see `export_peft`.

        Args:
            save_directory: the folder; a model in it is replaced.
            is_main_process: False on processes that only help to gather the weights.
            state_dict: weights to save in place of the model's own, gathered from shards. No probe is then written,
                because it would use other weights, or wait for processes that do not take part.
            push_to_hub: call `push_to_hub` afterwards, with the other arguments (`repo_id`, `token`, ...).
            max_shard_size: maximum size of a file, for a model that holds every weight.
            kwargs: arguments of `push_to_hub`. `save_function`, `safe_serialization=True` and `token`, which other
                libraries pass to every model, have no effect on a save.

        Raises:
            OSError: the model cannot be written, for example because the disk is full; the folder stays as it was.
            TypeError: an unknown argument.
            ValueError: the query vectors are NaN or infinite, `push_to_hub` comes with a `state_dict`, or
                `safe_serialization` is False.
        """
        _check_save_options(kwargs, self.push_to_hub if push_to_hub else None)
        if push_to_hub and state_dict is not None:
            raise ValueError(
                "push_to_hub=True pushes the model's own weights, not state_dict: save, load, and then push."
            )
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", None) or Path(save_directory).name
            self.save_pretrained(save_directory, is_main_process, max_shard_size=max_shard_size)
            if is_main_process:
                self.push_to_hub(repo_id, max_shard_size=max_shard_size, **kwargs)
            return
        size = ONE_FILE if self.config.weights == "adapter" else max_shard_size
        base = self.config.base_model_name_or_path
        if is_main_process and self.config.weights == "adapter" and base is not None and os.path.isdir(base):
            logger.warning_once(
                f"The saved adapter needs its base in {base}: keep that folder, or the adapter cannot be loaded."
            )
        # Each process needs a folder to gather the weights; only the main one keeps it.
        staging = staged(save_directory) if is_main_process else tempfile.TemporaryDirectory()
        with _named_when_full(save_directory), staging as folder:
            folder = Path(folder)
            with self._own_class():
                super().save_pretrained(folder, is_main_process, state_dict, max_shard_size=size)
            if not is_main_process:
                return
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(folder)
            if self.tokenizer is not None or self.config.token_vectors:
                self._save_sentence_transformers(folder)
            if state_dict is None and not any(isinstance(parameter, DTensor) for parameter in self.parameters()):
                Probe.take(self).save(folder / PROBE_FILE)
            self.config.checksums = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
            self.config.save_pretrained(folder)
            seal(folder)
            for file in folder.rglob("*.safetensors"):  # they are created readable for their owner only
                file.chmod((folder / "config.json").stat().st_mode)

    @contextmanager
    def _own_class(self) -> Iterator[None]:
        """Undo the class that FSDP2 gives the model, whose code would otherwise be saved in place of ours."""
        sharded = type(self)
        if sharded.__module__.startswith("torch."):
            self.__class__ = next(cls for cls in sharded.__mro__[1:] if cls.__name__ == "AMERModel")
        try:
            yield
        finally:
            self.__class__ = sharded

    def export_peft(self, directory: str | os.PathLike[str]) -> None:
        """Write the decoder's LoRA in PEFT's format, for use of the adapted decoder alone.

        `PeftModel.from_pretrained(base, directory)` then gives the decoder's hidden states, without the projections
        that turn them into query vectors. The matrices are in the decoder's precision.

        Args:
            directory: folder for `adapter_config.json` and `adapter_model.safetensors`. It must not be the folder of a
                saved AMER model, which transformers would then load as the plain base.

        Raises:
            ValueError: the model has no LoRA, or `directory` holds a saved model.
        """
        if self.config.weights != "adapter":
            raise ValueError("This model holds every weight and has no LoRA: there is nothing to export for PEFT.")
        if Path(directory, "config.json").exists():
            raise ValueError(
                f"{directory} holds a saved model. With an adapter_config.json in it, transformers would load the "
                "base instead: choose another directory, such as its subfolder adapter."
            )
        config = copy.deepcopy(vars(self.backbone)["peft_config"]["default"])
        config.base_model_name_or_path = self.config.base_model_name_or_path
        config.revision = self.config.base_model_revision
        config.task_type, config.inference_mode = "FEATURE_EXTRACTION", True
        if isinstance(config.target_modules, set):  # the order of a set differs between processes
            config.target_modules = sorted(config.target_modules)
        config.save_pretrained(directory)
        lora = {
            f"base_model.model.{name.replace('.default', '')}": value.to(self.backbone.dtype).contiguous()
            for name, value in self.backbone.state_dict().items()
            if "lora_" in name
        }
        file = Path(directory, "adapter_model.safetensors")
        save_file(lora, file, metadata={"format": "pt"})
        file.chmod(Path(directory, "adapter_config.json").stat().st_mode)  # written readable to their owner alone

    def _save_sentence_transformers(self, folder: Path) -> None:
        """Write the files that let sentence-transformers open the folder as a `MultiVectorEncoder`."""
        modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers_amer.AMERModule"}]
        (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"model_type": "MultiVectorEncoder"}, indent=2) + "\n", encoding="utf-8"
        )

    # ----------------------------------------------------------------------------------------------- publishing

    def push_to_hub(  # type: ignore[override]  # `public` is ours, and all but the name is given by name
        self,
        repo_id: str,
        *,
        public: bool = False,
        export_peft: bool = False,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """Publish the model in one commit. An interrupted push leaves the repository unchanged.

        A new repository is private unless `public=True` (transformers would use the organisation's default, or make it
        public). The visibility of an existing repository does not change, and its README.md only gets the `tags`. A
        repository without README.md gets a short card. `amer push model` writes the full card.

        Args:
            repo_id: name on the Hub; created if it does not exist.
            public: make a newly created repository public.
            export_peft: also publish `adapter/`, the decoder's LoRA in PEFT's format (see `export_peft`).
            commit_message: commit message.
            commit_description: commit description.
            private: transformers' opposite of `public`: False is public, True and None are private.
            token: token for the Hub. Default: that of the login.
            revision: branch; created if it does not exist.
            create_pr: open a pull request instead of committing.
            max_shard_size: maximum size of a file, for a model that holds every weight.
            tags: tags to add to the card.

        Raises:
            OSError: there is no login, or the Hub refuses the push.
            ValueError: the adapter's base or the document encoder is a folder, which others cannot load; the model has
                no LoRA for `export_peft`; or both `public` and `private` are True.
        """
        self.check_publishable()
        public = is_public(public, private)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            if export_peft:
                self.export_peft(Path(folder, "adapter"))
            forget_local_base(Path(folder))
            return push_files(
                files_in(Path(folder)),
                repo_id,
                public=public,
                branch=revision,
                replaced=REPLACED,
                card=partial(card_for_push, self.config, tags=tags or ()),
                commit_message=commit_message or "Upload AMER model",
                commit_description=commit_description,
                create_pr=create_pr,
                token=token,
            )

    def check_publishable(self) -> None:
        """Refuse to publish a model that only this machine can load.

        Raises:
            ValueError: the adapter's base or the document encoder is a folder, which others cannot load.
        """
        check_names(self.config)

    # -------------------------------------------------------------------------------------------------- merging

    @property
    def merges_exactly(self) -> bool:
        """Whether the model has LoRA that `merge_and_unload` can merge without a change of the vectors."""
        whole = self.backbone.dtype == torch.float32 and not getattr(self.backbone, "is_quantized", False)
        return whole and self.config.weights == "adapter"

    def merge_and_unload(self) -> Self:
        """Merge LoRA into the decoder. The result is a plain model that holds every weight.

        Raises:
            ValueError: the model has no LoRA, or its decoder is quantized or in half precision, so that merging would
                change the vectors.
        """
        if self.config.weights != "adapter":
            raise ValueError("This model has no LoRA to merge: it already holds every weight.")
        if not self.merges_exactly:
            raise ValueError(
                f"Merging needs the base in float32, but it is {self.backbone.dtype}: load with dtype=torch.float32."
            )
        for name, module in list(self.backbone.named_modules()):
            if isinstance(module, BaseTunerLayer):
                module.merge(safe_merge=True)
                self.backbone.set_submodule(name, module.get_base_layer())
        del self.backbone.peft_config
        self.config.weights, self.config.lora = "full", None
        self._refresh_keys_to_ignore()
        return self


def _check_options(config: AMERConfig | None, options: dict[str, Any]) -> None:
    """Remove AutoModel's additions from the options of `from_pretrained`, and refuse options without effect."""
    for key in (*AUTO_CLASS_OPTIONS, "trust_remote_code"):
        options.pop(key, None)
    if options.pop("state_dict", None) is not None or options.pop("use_safetensors", None) is False:
        raise ValueError(
            "AMER loads models from their safetensors files: leave out state_dict and use_safetensors=False."
        )
    if config is not None and getattr(config, "model_type", None) != "amer":
        raise ValueError(f"config must be an AMERConfig, got {config!r}. To override a field, pass it by name.")
    if "torch_dtype" in options:
        options["dtype"] = options.pop("torch_dtype")


def _check_save_options(options: dict[str, Any], push: Callable[..., Any] | None) -> None:
    """Remove the arguments that libraries pass to every `save_pretrained`, and refuse unknown ones."""
    if not options.pop("safe_serialization", True):
        raise ValueError("AMER saves models in safetensors only: leave out safe_serialization=False.")
    options.pop("save_function", None)
    if push is not None:
        inspect.signature(push).bind(**{"repo_id": "", **options})
        return
    options.pop("token", None)
    if options:
        raise TypeError(f"AMERModel.save_pretrained() has no argument {', '.join(sorted(options))}.")


def _check_code(where: str | os.PathLike[str]) -> None:
    """Refuse to run the code of one saved model for another.

    Older versions of transformers cache the code of local folders by folder name. A second folder of the same name
    would then run with the code of the first.

    Raises:
        OSError: the running code belongs to another model than the one at `where`.
    """
    if not __name__.startswith("transformers_modules."):
        return
    for name, digest in CODE.items():
        file = Path(where, name)
        if file.is_file() and sha256(file) != digest:
            raise OSError(
                f"{file} is not the code that runs here: that code came from another model, in a folder also called "
                f"{Path(where).name!r}. Load the two in different processes, or give the folders different names."
            )


def _lasting_name(base: str | os.PathLike[str]) -> str:
    """A name on the Hub unchanged; a folder as an absolute path."""
    return os.path.abspath(base) if os.path.isdir(base) else str(base)


def _load_tokenizer(where: str | os.PathLike[str], **options: Any) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:  # tokenizers raises a bare Exception for damaged files
        raise OSError(
            f"{where} has no tokenizer that can be read, such as tokenizer.json: save the decoder's tokenizer there, "
            f"or fetch it again. ({error})"
        ) from error
    if len(tokenizer) == 0 or not tokenizer("a question", add_special_tokens=False)["input_ids"]:
        raise OSError(f"{where} has no tokenizer, only an empty one: save the decoder's tokenizer.json there.")
    return tokenizer


def _load_base(base: str | None, **kwargs: Any) -> PreTrainedModel:
    if base is None:
        raise ValueError("The configuration names no base model: pass base_model_name_or_path=.")
    place = {key: kwargs[key] for key in (*HUB_OPTIONS, "revision") if key in kwargs}
    try:
        check_attention(PreTrainedConfig.get_config_dict(base, **place)[0], base)
        return AutoModel.from_pretrained(base, use_safetensors=True, trust_remote_code=False, **kwargs)
    except (OSError, ValueError) as error:  # ValueError: a folder without config.json, code of its own, bad options
        raise OSError(
            f"The base model {base!r} could not be loaded. Give the name of a decoder on the Hub that you can reach, "
            f"or a folder with a decoder, as base_model_name_or_path. ({error})"
        ) from error


def _commit(base: str | None, revision: str | None, hub_options: dict[str, Any]) -> str | None:
    """The commit of a revision in a Hub repository; None for a folder."""
    if base is None or os.path.isdir(base):
        return None
    try:
        file = cached_file(base, "config.json", revision=revision, **hub_options)
    except OSError:
        return revision  # loading the base will report the error
    return extract_commit_hash(file, None) or revision


def _check_types(where: str | os.PathLike[str], saved: dict[str, Any]) -> None:
    """Raise ValueError if a field of config.json has the wrong type."""
    encoder = saved.get("document_encoder")
    names = encoder if isinstance(encoder, dict) else {}
    wrong = [name for name, kinds in FIELD_TYPES.items() if name in saved and not _is_of(saved[name], kinds)]
    wrong += [f"document_encoder.{name}" for name, value in names.items() if not _is_of(value, (str, NOTHING))]
    if wrong:
        raise ValueError(
            f"The config.json of {where} has fields of the wrong type: {', '.join(wrong)}. Fetch it again."
        )


def _is_of(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value has one of the types; True and False do not count as numbers."""
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def check_files(where: str | os.PathLike[str], saved: dict[str, Any], verify: bool, **options: Any) -> None:
    """Compare the weights with the checksums in config.json.

    An adapter's weights are checked at every load, larger files once, or at every load with `verify`.

    Raises:
        OSError: a file is missing, or differs from the saved file.
        ValueError: the checksums name files outside the model, or the weights are not floats.
    """
    checksums = saved.get("checksums") or {}
    for name in (*checksums, *_indexed_files(Path(where, options.get("subfolder") or "", INDEX_FILE))):
        check_weights_name(name)
    for name, checksum in checksums.items():
        remember = saved.get("weights") == "full" and not verify
        file = saved_file(where, name, **options)
        check_sha256(file, checksum, remember)
        check_floats(file)
    check_sealed(lambda name: saved_file(where, name, **options))


def _indexed_files(index: Path) -> set[Any]:
    """The weights files that the index of a sharded model lists; an empty set if there is no index.

    Raises:
        OSError: the file is not an index of weights.
    """
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OSError(f"{index} does not list which file holds which weight ({error!r}): fetch it again.") from error


@contextmanager
def _named_when_full(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Add the folder's name to an error while writing, such as a full disk."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        raise OSError(f"The model could not be written into {folder}: is the disk full? ({error})") from error


def _check_probe(model: AMERPreTrainedModel, probe: Probe) -> None:
    report = probe.compare(model)
    if not report.reproduced:
        raise ValueError(
            f"This model does not reproduce the vectors that were saved with it: {report}. "
            "Use the same base, precision and versions, or load it without verify=True."
        )


def _refuse(
    where: str | os.PathLike[str], missing: Iterable[Any], unexpected: Iterable[Any], mismatched: Iterable[Any]
) -> None:
    """Raise an error for weights that do not fit, because a model with random weights looks like a working one."""
    if missing or unexpected or mismatched:
        shapes = sorted(map(str, mismatched))
        hint = " An earlier version trained its part labeller: train the model again." * (
            "part_labeller" in str(shapes)
        )
        raise ValueError(
            f"The weights in {where} do not fit this model: missing {sorted(missing)[:5]}, "
            f"unexpected {sorted(unexpected)[:5]}, of another shape {shapes[:5]}.{hint}"
        )
