"""Opening functions that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amer.corpus import DocumentStore


def open_store(name: str) -> DocumentStore:
    """Open a document store: a folder, or a name on the Hub."""
    from amer.corpus import DocumentStore
    from amer.hub import pull_folder

    return DocumentStore.open(pull_folder(name))
