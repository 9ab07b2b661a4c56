"""Load an AMER model from a folder or the Hub, save it in a folder, and publish it on the Hub.

A saved adapter holds LoRA and projections. Loading it fetches the frozen base from its original source, at the commit
that the adapter was trained on. Weights that do not fit are an error, because a retriever with random weights in it
looks like a working one.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import torch
from huggingface_hub import CommitInfo
from safetensors import SafetensorError
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .base_amer import commit_of, hub_options_of, load_base, load_tokenizer
from .checksums_amer import seal, sha256
from .configuration_amer import AMERConfig
from .loading_amer import check_code, check_files, check_fit, read_config, read_weights
from .lora_amer import export_lora
from .probe_amer import PROBE_FILE, Probe
from .publishing_amer import card_for_push, check_names, files_in, forget_local_base, is_public, push_files
from .staging_amer import REPLACED, place_of_save, saved_file, staged

logger = logging.get_logger(__name__)

AUTO_CLASS_OPTIONS = ("_from_auto", "_from_pipeline", "adapter_kwargs")
WEIGHTS_FILE = "model.safetensors"
OWN_PARTS = (
    "input_projection", "output_projection", "token_anchor", "query_tokens", "stop_projection", "part_labeller",
)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, exceeded quota, exceeded file size
ONE_FILE = 2**62  # bytes: an adapter is never cut into shards


class AMERPreTrainedModel(PreTrainedModel):
    """Loads, saves and publishes [`AMERModel`], which adds the computation."""

    config_class = AMERConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = [*OWN_PARTS]  # noqa: RUF012  (a list: 5.0 drops a set)

    # Attributes of AMERModel, the only class that is instantiated.
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
            verify: Read every weights file again, even if the cache knows it (see `checksums_amer.py`). Also encode
                the model's probe, and refuse a model that does not reproduce it (see [`Probe`]).
            document_encoder_path: Folder of the document encoder's weights, which an anchored model needs to read
                questions in text. Default: the Hub, at the first such question.

        Raises:
            OSError: A file of the model or its base is missing, or differs from the saved file; the message names it.
            ValueError: The weights file lacks a tensor, or has an unknown one or one of another shape; or the model
                does not reproduce its probe.
        """
        _check_options(config, kwargs)
        check_code(pretrained_model_name_or_path)
        where = pretrained_model_name_or_path
        place: dict[str, Any] = {"revision": revision, "subfolder": place_of_save(where, subfolder)}
        hub_options = hub_options_of(kwargs)
        decoder_options = _decoder_options(config, kwargs)
        saved = read_config(where, **place, **hub_options)
        if config is None:
            config, kwargs = _config_of(where, **place, **kwargs)
        check_files(where, saved, verify, **place, **hub_options)
        options = {**hub_options, **kwargs, **decoder_options}
        if config.weights == "full":
            model, info = cls._load_whole(where, *model_args, config=config, **{**options, **place})
        else:
            model = cls._on_base(config, saved, hub_options, options)
            info = model._load_adapter(saved_file(where, WEIGHTS_FILE, **place, **hub_options))
        config.name_or_path = str(where)
        model.document_encoder_path = None if document_encoder_path is None else str(document_encoder_path)
        model._encoder_options = hub_options
        if config.prompt_template is not None:
            model.tokenizer = load_tokenizer(where, **place, **hub_options, config=config.text_config)
        if verify:
            Probe.from_pretrained(where, **place, **hub_options).check(model)
        return (model, info) if output_loading_info else model

    @classmethod
    def _load_whole(
        cls, where: str | os.PathLike[str], *model_args: Any, revision: str | None, **options: Any
    ) -> tuple[Self, dict[str, Any]]:
        """A model whose files hold every weight, and transformers' report on its loading."""
        options |= {"use_safetensors": True, "output_loading_info": True}
        options |= {"ignore_mismatched_sizes": True}  # `check_fit` refuses them, by name
        loading: Any = super().from_pretrained(where, *model_args, revision=revision or "main", **options)
        model, info = loading  # a pair, although transformers annotates a model
        check_fit(where, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
        return model, info

    @classmethod
    def _on_base(
        cls, config: AMERConfig, saved: dict[str, Any], hub_options: dict[str, Any], options: dict[str, Any]
    ) -> Self:
        """A model with untrained LoRA on the configuration's base, which may differ from the saved one."""
        base, commit = config.base_model_name_or_path, config.base_model_revision
        if base != saved.get("base_model_name_or_path") and commit == saved.get("base_model_revision"):
            commit = None  # the pinned commit belongs to the saved base
        config.base_model_revision = commit = commit_of(base, commit, hub_options)
        options = {"dtype": config.text_config.dtype or "auto", **options, "revision": commit}
        return cls(config, load_base(base, **options))._place_projections().eval()

    def _load_adapter(self, file: str) -> dict[str, Any]:
        """Load LoRA and projections; return a report like transformers'."""
        state, own = read_weights(file), self.state_dict()
        missing = [key for key in own if key not in state and key not in (self._keys_to_ignore_on_save or ())]
        unexpected = [key for key in state if key not in own]
        mismatched = [key for key in state if key in own and state[key].shape != own[key].shape]
        check_fit(file, missing, unexpected, mismatched)
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
            save_directory: The folder; a model in it is replaced.
            is_main_process: False on processes that only help to gather the weights.
            state_dict: Weights to save in place of the model's own, gathered from shards. No probe is then written,
                because it would use other weights, or wait for processes that do not take part.
            push_to_hub: Call `push_to_hub` afterwards, with the other arguments (`repo_id`, `token`, ...).
            max_shard_size: Maximum size of a file, for a model that holds every weight.
            kwargs: Arguments of `push_to_hub`. `save_function`, `safe_serialization=True` and `token`, which other
                libraries pass to every model, have no effect on a save.

        Raises:
            OSError: The model cannot be written, for example because the disk is full; the folder stays as it was.
            TypeError: An unknown argument.
            ValueError: The query vectors are NaN or infinite, `push_to_hub` comes with a `state_dict`, or
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
        if is_main_process:
            self._warn_of_local_base()
        # Each process needs a folder to gather the weights; only the main one keeps it.
        staging = staged(save_directory) if is_main_process else tempfile.TemporaryDirectory()
        with _named_when_full(save_directory), staging as folder:
            with self._own_class():
                super().save_pretrained(folder, is_main_process, state_dict, max_shard_size=size)
            if is_main_process:
                self._save_beside_weights(Path(folder), takes_probe=state_dict is None)

    def _save_beside_weights(self, folder: Path, takes_probe: bool) -> None:
        """Write tokenizer, probe and checksums into a folder that holds weights, configuration and code."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        if self.tokenizer is not None or self.config.token_vectors:
            _save_sentence_transformers(folder)
        if takes_probe and not any(isinstance(parameter, DTensor) for parameter in self.parameters()):
            Probe.take(self).save(folder / PROBE_FILE)
        self.config.checksums = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
        self.config.save_pretrained(folder)
        seal(folder)
        for file in folder.rglob("*.safetensors"):  # they are created readable for their owner only
            file.chmod((folder / "config.json").stat().st_mode)

    def _warn_of_local_base(self) -> None:
        """Warn if the adapter's base is a folder of this machine."""
        base = self.config.base_model_name_or_path
        if self.config.weights == "adapter" and base is not None and os.path.isdir(base):
            logger.warning_once(
                f"The saved adapter needs its base in {base}: keep that folder, or the adapter cannot be loaded."
            )

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
            directory: Folder for `adapter_config.json` and `adapter_model.safetensors`. It must not be the folder of a
                saved AMER model, which transformers would then load as the plain base.

        Raises:
            ValueError: The model has no LoRA, or `directory` holds a saved model.
        """
        if self.config.weights != "adapter":
            raise ValueError("This model holds every weight and has no LoRA: there is nothing to export for PEFT.")
        if Path(directory, "config.json").exists():
            raise ValueError(
                f"{directory} holds a saved model. With an adapter_config.json in it, transformers would load the "
                "base instead: choose another directory, such as its subfolder adapter."
            )
        export_lora(
            self.backbone, Path(directory), self.config.base_model_name_or_path, self.config.base_model_revision
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
            repo_id: Name on the Hub; created if it does not exist.
            public: Make a newly created repository public.
            export_peft: Also publish `adapter/`, the decoder's LoRA in PEFT's format (see `export_peft`).
            commit_message: Commit message.
            commit_description: Commit description.
            private: transformers' opposite of `public`: False is public, True and None are private.
            token: Token for the Hub. Default: that of the login.
            revision: Branch; created if it does not exist.
            create_pr: Open a pull request instead of committing.
            max_shard_size: Maximum size of a file, for a model that holds every weight.
            tags: Tags to add to the card.

        Raises:
            OSError: There is no login, or the Hub refuses the push.
            ValueError: The adapter's base or the document encoder is a folder, which others cannot load; the model has
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
            ValueError: The adapter's base or the document encoder is a folder, which others cannot load.
        """
        check_names(self.config)


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


def _decoder_options(config: AMERConfig | None, options: dict[str, Any]) -> dict[str, Any]:
    """Remove the options that are the decoder's alone from those of `from_pretrained`, and return them."""
    own: dict[str, Any] = {key: options.pop(key) for key in ("dtype", "attn_implementation") if key in options}
    attention = getattr(config, "_attn_implementation_internal", None)
    if attention is not None:  # AutoModel keeps the choice in the configuration
        own.setdefault("attn_implementation", attention)
    return own


def _config_of(where: str | os.PathLike[str], **options: Any) -> tuple[AMERConfig, dict[str, Any]]:
    """The configuration with the overrides among the options, and the remaining options."""
    try:
        configuration: Any = AMERConfig.from_pretrained(where, return_unused_kwargs=True, **options)
        return configuration  # a pair, although transformers annotates a configuration
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"The config.json of {where} has a field of the wrong type ({error}).") from error


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


@contextmanager
def _named_when_full(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Add the folder's name to an error while writing, such as a full disk."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        raise OSError(f"The model could not be written into {folder}: is the disk full? ({error})") from error


def _save_sentence_transformers(folder: Path) -> None:
    """Write the files that let sentence-transformers open the folder as a `MultiVectorEncoder`."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers_amer.AMERModule"}]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "MultiVectorEncoder"}, indent=2) + "\n", encoding="utf-8"
    )
