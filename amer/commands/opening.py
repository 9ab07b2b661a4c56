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
