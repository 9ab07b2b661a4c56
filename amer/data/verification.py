"""Checks a dataset directory or a document store before it is published."""

from __future__ import annotations

import os
from pathlib import Path

from amer.corpus import DocumentStore
from amer.data.dataset import load_dataset_dir


def verify_folder(folder: str | os.PathLike[str]) -> None:
    """Read all of a dataset directory or a document store, so that a damaged one is never published.

    Args:
        folder: A folder with `dataset.json` or `store.json`; any other folder passes unchecked.

    Raises:
        FileNotFoundError: A file of the dataset or store is missing.
        OSError: A file is truncated or damaged.
        ValueError: The content of a file is invalid, or the store names its encoder by a folder on this machine.
    """
    folder = Path(folder)
    if (folder / "dataset.json").is_file():
        load_dataset_dir(folder)
    if (folder / "store.json").is_file():
        store = DocumentStore.open(folder)
        if Path(store.encoder["name"]).is_absolute():
            raise ValueError(
                f"{folder / 'store.json'} names the encoder by the folder {store.encoder['name']}, which nobody else "
                "has: encode the corpus again, with the encoder's name on the Hub"
            )
        store.verify()
