"""Read the settings of a training from a YAML file or a packaged configuration; options override its values."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from amer.trainer.arguments import AMERTrainingArguments, Arguments, DataArguments, ModelArguments

CLASSES = (ModelArguments, DataArguments, AMERTrainingArguments)
CONFIGS = Path(__file__).parent / "configs"  # packaged configurations, such as `mini`
FIELDS = frozenset(item.name for cls in CLASSES for item in fields(cls))


def parser() -> HfArgumentParser:
    """A parser with one option per field, `--name value`; its help lists them all."""
    classes: Any = CLASSES  # transformers' name for the type of a dataclass fits no class
    return HfArgumentParser(classes, prog="amer train [CONFIG]", description=__doc__)


def parse(argv: Sequence[str]) -> Arguments:
    """The settings of a command line, `[CONFIG] [--any_field value ...]`.

    CONFIG is a YAML file, or the name of a packaged configuration, such as `mini`.

    Raises:
        ValueError: The file is not a YAML mapping or has an unknown key, a required field is not set, or fields
            exclude each other.
    """
    config = _config(argv[0]) if argv else None
    if config is not None:
        argv = [*as_options(read_yaml(config, FIELDS)), *argv[1:]]
    arguments: Any = parser().parse_args_into_dataclasses(args=list(argv))
    model_args, data_args, args = arguments
    required = {"dataset": data_args.dataset, "store": data_args.store}
    if not model_args.layers:
        required = {"base_model": model_args.base_model, **required}
    for name, value in required.items():
        if not value:
            raise ValueError(f"{name} is not set: give it in the YAML file or as --{name}.")
    if data_args.token_cache and not model_args.reads_tokens:
        raise ValueError(
            "token_cache is set, but the model does not read token vectors: leave out token_cache, or set "
            "token_vectors, layers or anchor: tokens."
        )
    args.check_model(model_args)
    if args.objective == "matched" and args.max_targets and args.max_targets < model_args.num_query_vectors:
        raise ValueError(
            f"max_targets is {args.max_targets}, so training never reaches later vectors: "
            f"num_query_vectors cannot be {model_args.num_query_vectors}. Set both to the same number (Single-Query: "
            "1)."
        )
    return arguments


def _config(name: str) -> Path | None:
    """The file that the first word of a command line names; None if the word is an option.

    Raises:
        ValueError: The word is neither a YAML file nor a packaged configuration.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    packaged = {file.stem: file for file in CONFIGS.glob("*.yaml")}
    if name.startswith("-"):
        return None
    if name not in packaged:
        raise ValueError(f"{name!r} is not a configuration: give a YAML file, or {' or '.join(sorted(packaged))}.")
    return packaged[name]


def as_options(values: Mapping[str, Any]) -> list[str]:
    """Turn the mapping into options, so that both get the same checks. An empty value keeps the field's default."""
    options: list[str] = []
    for name, value in values.items():
        if isinstance(value, list):
            options += [f"--{name}", *map(str, value)]
        elif value is not None:
            options.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return options


def read_yaml(path: str | os.PathLike[str], known: Set[str]) -> dict[str, Any]:
    """Read a mapping from a YAML file; its keys must be known fields.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not YAML, not a mapping, or has an unknown key; the message names the file.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of field names to values, got {type(values).__name__}.")
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else "; `amer train --fields` lists all."
            raise ValueError(f"{path}: unknown key {key!r}{hint}")
    return values
