"""Cache of the prompt that all questions share: the decoder reads it once, and later calls reuse it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)  # reading more replaces their tensors and never changes them


class PromptCache:
    """Keys and values of one prompt, valid as long as nothing changes that they depend on.

    They depend on the tokens, on every weight of the decoder with its device and precision, on the attention
    implementation, on autocast, and on the active adapters. The cache is empty in training mode and when gradients are
    recorded. In evaluation mode, it cannot detect writes through `weight.data`, which torch does not count: call
    `model.train()` before such a write, or `drop` after it.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, DynamicCache] | None = None  # one attribute: threads see both values or neither

    def drop(self) -> None:
        """Drop the cached prompt; the next call reads it again."""
        self._kept = None

    def read(
        self, backbone: PreTrainedModel, prefix_ids: torch.Tensor, rows: int, read: Callable[[DynamicCache], object]
    ) -> DynamicCache:
        """A cache for `rows` questions that holds the prompt. Reading into it does not change the kept copy.

        Args:
            backbone: The decoder.
            prefix_ids: `(1, prefix)` tokens of the prompt.
            rows: Number of questions in the batch.
            read: Function that reads the prompt into an empty cache; called if no valid copy is kept.
        """
        if backbone.training or torch.is_grad_enabled():
            self.drop()
            cache = DynamicCache(config=backbone.config)
            read(cache)
            cache.batch_repeat_interleave(rows)
            return cache
        state = (prefix_ids.tolist(), _state(backbone))
        kept = self._kept
        if kept is None or kept[0] != state:
            kept = (state, DynamicCache(config=backbone.config))
            read(kept[1])
            plain = all(type(layer) in PLAIN_LAYERS for layer in kept[1].layers)
            self._kept = kept if plain else None
        return twin_of(kept[1], lambda values: values.expand(rows, -1, -1, -1))


def twin_of(cache: DynamicCache, change: Callable[[torch.Tensor], torch.Tensor]) -> DynamicCache:
    """A copy of a cache with `change` applied to all keys and values. Reading into it does not change the original."""
    twin = copy(cache)
    twin.layers = [copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        for name in ("keys", "values"):
            setattr(layer, name, change(getattr(layer, name)))
    return twin


def _state(backbone: PreTrainedModel) -> list[Any]:
    """All that the keys and values of a prompt depend on, except the prompt; equal as long as nothing changes."""
    found: list[Any] = [backbone.config._attn_implementation]
    kind = backbone.device.type
    found.append(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None)
    for module in backbone.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                # torch counts changes in place, but not for tensors of inference mode; these never compare equal.
                changes = object() if tensor.is_inference() else tensor._version
                found.append((id(tensor), tensor.data_ptr(), changes, tensor.dtype))
        if isinstance(module, BaseTunerLayer):
            found.append((module.disable_adapters, [*module.active_adapters], [*module.merged_adapters]))
            found.append(dict(getattr(module, "scaling", {})))
    return found
