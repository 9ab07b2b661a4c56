"""Cards for the Hub: for models, datasets, document stores, the metric and Spaces, rendered from recorded facts."""

from __future__ import annotations

from amer.hub_cards.data_cards import dataset_card, metric_card, store_card
from amer.hub_cards.model_card import model_card, write_model_card
from amer.hub_cards.space import space_card, write_space
from amer.hub_cards.updating import update_card

__all__ = [
    "dataset_card",
    "metric_card",
    "model_card",
    "space_card",
    "store_card",
    "update_card",
    "write_model_card",
    "write_space",
]
