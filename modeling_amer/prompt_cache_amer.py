"""The prompt that all questions share: it is read once, and its keys and values are kept from call to call."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)  # what they hold is replaced when more is read, never changed


class PromptCache:
    """Keys and values of one prompt, as long as nothing changes that they depend on.

    They depend on the tokens, on every weight of the decoder with its device and precision, on the attention
    implementation, on autocast, and on which adapters are active. Nothing is kept in training mode, nor where
    gradients are recorded. Torch does not count what is written through `weight.data` in evaluation mode: call
    `model.train()` before, or `drop` after it.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, DynamicCache] | None = None  # one attribute, so that threads see both or none

    def drop(self) -> None:
        """Forget the prompt, which is then read again."""
        self._kept = None

    def read(
        self, backbone: PreTrainedModel, prefix_ids: torch.Tensor, rows: int, read: Callable[[DynamicCache], object]
    ) -> DynamicCache:
        """A cache for `rows` questions that holds the prompt; what is read into it does not reach what is kept.

        Args:
            backbone: the decoder.
            prefix_ids: `(1, prefix)` tokens of the prompt.
            rows: questions of the batch.
            read: reads the prompt into an empty cache; called where none is kept.
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
    """A copy that holds `change` of all keys and values; what is read into it does not reach the cache it is of."""
    twin = copy(cache)
    twin.layers = [copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        for name in ("keys", "values"):
            setattr(layer, name, change(getattr(layer, name)))
    return twin


def _state(backbone: PreTrainedModel) -> list[Any]:
    """What the keys and values of a prompt depend on, but for the prompt; equal as long as all of it is unchanged."""
    found: list[Any] = [backbone.config._attn_implementation]
    kind = backbone.device.type
    found.append(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None)
    for module in backbone.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                # The changes made in place are counted, but not those of tensors of inference mode: equal to nothing.
                changes = object() if tensor.is_inference() else tensor._version
                found.append((id(tensor), tensor.data_ptr(), changes, tensor.dtype))
        if isinstance(module, BaseTunerLayer):
            found.append((module.disable_adapters, [*module.active_adapters], [*module.merged_adapters]))
            found.append(dict(getattr(module, "scaling", {})))
    return found
