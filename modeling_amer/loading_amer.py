"""Read the configuration and the weights of a saved model, and check that its files are whole and fit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .checksums_amer import check_floats, check_sealed, check_sha256, check_weights_name, sha256
from .configuration_amer import AMERConfig
from .staging_amer import saved_file

INDEX_FILE = "model.safetensors.index.json"
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
# Name -> sha256 of each file of the code that runs here, as it was when imported; see `check_code`.
CODE = {file.name: sha256(file) for file in sorted(Path(__file__).parent.glob("*_amer.py"))}


def check_code(where: str | os.PathLike[str]) -> None:
    """Refuse to run the code of one saved model for another.

    Older versions of transformers cache the code of local folders by folder name. A second folder of the same name
    would then run with the code of the first.

    Raises:
        OSError: The running code belongs to another model than the one at `where`.
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


def read_config(where: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """The fields of a saved model's config.json.

    Args:
        where: A folder, or the name of a repository on the Hub.
        options: Options of transformers' `cached_file`: `revision`, `subfolder`, `token`, ...

    Raises:
        OSError: There is no such model, or it is not an AMER model.
        ValueError: A field has the wrong type.
    """
    try:
        saved, _ = AMERConfig.get_config_dict(where, **options)
    except (OSError, RecursionError) as error:
        raise OSError(
            f"The AMER model {str(where)!r} could not be opened: give a folder with a model, or the name of a model "
            f"on the Hub that this machine can reach. ({error})"
        ) from error
    if saved.get("model_type") != "amer":  # a folder without config.json would get a configuration of defaults
        raise OSError(
            f"{where} holds no AMER model: its config.json is missing or has the model_type "
            f"{saved.get('model_type')!r}, not 'amer'."
        )
    _check_types(where, saved)
    return saved


def check_files(where: str | os.PathLike[str], saved: dict[str, Any], verify: bool, **options: Any) -> None:
    """Compare the weights with the checksums in config.json.

    An adapter's weights are checked at every load, larger files once, or at every load with `verify`.

    Raises:
        OSError: A file is missing, or differs from the saved file.
        ValueError: The checksums name files outside the model, or the weights are not floats.
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


def read_weights(file: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        OSError: The file is truncated, or not a safetensors file.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise OSError(f"{file} is truncated or not a safetensors file ({error}): fetch or save it again.") from error


def check_fit(
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


def _indexed_files(index: Path) -> set[Any]:
    """The weights files that the index of a sharded model lists; an empty set if there is no index.

    Raises:
        OSError: The file is not an index of weights.
    """
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OSError(f"{index} does not list which file holds which weight ({error!r}): fetch it again.") from error


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
