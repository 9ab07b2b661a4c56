"""What several commands open before they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amer.corpus import DocumentStore


def open_store(name: str) -> DocumentStore:
    """A document store: a folder, or one of the Hub by its name."""
    from amer.corpus import DocumentStore
    from amer.hub import pull_folder

    return DocumentStore.open(pull_folder(name))


def chosen_device(device: str | None) -> str:
    """The device that was asked for, else a GPU if there is one."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")
