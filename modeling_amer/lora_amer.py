"""LoRA of the decoder: add it, merge it, and write it in PEFT's format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from transformers import PreTrainedModel

EXACT_STARTS = (True, False, "gaussian", "orthogonal")  # other values change the base, which is not saved


def add_lora(backbone: PreTrainedModel, options: dict[str, Any]) -> None:
    """Add LoRA matrices in float32 to a decoder, and freeze everything else.

    Args:
        backbone: The decoder; it is changed in place.
        options: Keyword arguments of `peft.LoraConfig`.

    Raises:
        ValueError: The options change or train weights that an adapter does not save.
    """
    start = options.get("init_lora_weights", True)
    if start not in EXACT_STARTS:
        raise ValueError(
            f"init_lora_weights={start!r} changes the base's weights, which an adapter does not save: choose one of "
            f"{EXACT_STARTS}."
        )
    backbone.requires_grad_(False)
    # The backbone's `add_adapter` would need a newer PEFT with every version of transformers.
    inject_adapter_in_model(LoraConfig(**options), backbone)
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        elif parameter.requires_grad:
            raise ValueError(
                f"With lora={options} training would update the decoder's {name}, but an adapter holds LoRA matrices "
                "only: leave out `bias` and `modules_to_save`, or train the whole decoder (lora=None)."
            )


def merge_lora(backbone: PreTrainedModel) -> None:
    """Add the LoRA matrices to the decoder's weights, and remove them; the decoder is changed in place."""
    for name, module in list(backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            backbone.set_submodule(name, module.get_base_layer())
    del backbone.peft_config


def export_lora(backbone: PreTrainedModel, folder: Path, base: str | None, revision: str | None) -> None:
    """Write the LoRA of a decoder in PEFT's format.

    Args:
        backbone: The decoder.
        folder: Folder for `adapter_config.json` and `adapter_model.safetensors`.
        base: Name of the decoder without LoRA.
        revision: Commit of that decoder.
    """
    config = copy.deepcopy(vars(backbone)["peft_config"]["default"])
    config.base_model_name_or_path, config.revision = base, revision
    config.task_type, config.inference_mode = "FEATURE_EXTRACTION", True
    if isinstance(config.target_modules, set):  # the order of a set differs between processes
        config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    lora = {
        f"base_model.model.{name.replace('.default', '')}": value.to(backbone.dtype).contiguous()
        for name, value in backbone.state_dict().items()
        if "lora_" in name
    }
    file = folder / "adapter_model.safetensors"
    save_file(lora, file, metadata={"format": "pt"})
    file.chmod((folder / "adapter_config.json").stat().st_mode)  # written readable to their owner alone
