"""Weights in 8 bits, for questions on a CPU: a decoder that reads one token at a time waits for its weights' bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from modeling_amer import AMERModel

Quantization = Literal["int8"]
INT8 = 127


class Int8Linear(nn.Module):
    """A linear layer whose weights are 8-bit integers, with a scale for each output.

    Inputs are rounded to 8 bits as they come, products are summed as integers, and what comes out is float32. The
    computation is torch's own (`quantized::linear_dynamic`).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(dim=1) / INT8).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` float32 -> `(..., out_features)` float32."""
        return torch.ops.quantized.linear_dynamic(inputs, self._packed)


def check_quantization(quantize: str, device: str, dtype: torch.dtype) -> None:
    """Refuse what cannot be had.

    Raises:
        ValueError: it is not "int8", the device is not the CPU, or the precision is not float32.
    """
    if quantize != "int8":
        raise ValueError(f'quantize must be "int8", got {quantize!r}')
    if torch.device(device).type != "cpu":
        raise ValueError(f'quantize="int8" is for CPUs, not {device}: pass dtype="bfloat16" there')
    if dtype != torch.float32:
        raise ValueError(f'quantize="int8" computes in float32 between its layers, not {dtype}: leave out dtype')


def quantized(model: AMERModel) -> AMERModel:
    """The model, the linear layers of its decoder in 8 bits; all else, and the document encoder, stays as it is.

    LoRA is merged first. The model can no longer be trained or saved.
    """
    if model.config.weights == "adapter":
        model = model.merge_and_unload()
    for name, module in list(model.backbone.named_modules()):
        if isinstance(module, nn.Linear):
            model.backbone.set_submodule(name, Int8Linear(module))
    return model
