"""The decoder that a model is built on: a model of the Hub or of a folder, at a pinned commit, and its tokenizer."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, extract_commit_hash

from .configuration_amer import check_attention

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "proxies")  # shared by adapter and base


def hub_options_of(options: dict[str, Any]) -> dict[str, Any]:
    """Those options of `from_pretrained` that adapter and base share."""
    return {name: options[name] for name in HUB_OPTIONS if name in options}


def load_base(base: str | None, **kwargs: Any) -> PreTrainedModel:
    """Load the decoder. Code of its own never runs.

    Args:
        base: A folder, or a name on the Hub.
        kwargs: Options of `AutoModel.from_pretrained`.

    Raises:
        OSError: It cannot be found, is not in safetensors, needs code of its own, names an attention that AMER
            refuses, or does not take the options.
        ValueError: There is no name.
    """
    if base is None:
        raise ValueError("The configuration names no base model: pass base_model_name_or_path=.")
    place = {**hub_options_of(kwargs), "revision": kwargs.get("revision")}
    try:
        check_attention(PreTrainedConfig.get_config_dict(base, **place)[0], base)
        return AutoModel.from_pretrained(base, use_safetensors=True, trust_remote_code=False, **kwargs)
    except (OSError, ValueError) as error:  # ValueError: a folder without config.json, code of its own, bad options
        raise OSError(
            f"The base model {base!r} could not be loaded. Give the name of a decoder on the Hub that you can reach, "
            f"or a folder with a decoder, as base_model_name_or_path. ({error})"
        ) from error


def load_tokenizer(where: str | os.PathLike[str], **options: Any) -> PreTrainedTokenizerBase:
    """Load the decoder's tokenizer. Raises OSError if there is none, or only a damaged or empty one."""
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


def commit_of(base: str | None, revision: str | None, hub_options: dict[str, Any]) -> str | None:
    """The commit of a revision in a Hub repository; None for a folder."""
    if base is None or os.path.isdir(base):
        return None
    try:
        file = cached_file(base, "config.json", revision=revision, **hub_options)
    except OSError:
        return revision  # loading the base will report the error
    return extract_commit_hash(file, None) or revision


def lasting_name(base: str | os.PathLike[str]) -> str:
    """A name on the Hub unchanged; a folder as an absolute path."""
    return os.path.abspath(base) if os.path.isdir(base) else str(base)
