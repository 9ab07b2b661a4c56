"""A dataset directory or a document store is read whole before it is published."""

from __future__ import annotations

import os
from pathlib import Path

from amer.corpus import DocumentStore
from amer.data.dataset import load_dataset_dir


def verify_folder(folder: str | os.PathLike[str]) -> None:
    """Read a dataset directory or a document store whole, so that a damaged one is never published.

    Args:
        folder: holds `dataset.json` or `store.json`; any other folder is taken as it is.

    Raises:
        FileNotFoundError: a file of the dataset or store is missing.
        OSError: a file of the store is truncated or damaged; names it.
        ValueError: a file breaks its contract, or the store names its encoder by a folder of this machine; names it.
    """
    folder = Path(folder)
    if (folder / "dataset.json").is_file():
        load_dataset_dir(folder)
    if (folder / "store.json").is_file():
        store = DocumentStore.open(folder)
        if Path(store.encoder["name"]).is_absolute():
            raise ValueError(
                f"{folder / 'store.json'} names the encoder by the folder {store.encoder['name']}, which nobody else "
                "has: encode the corpus under the encoder's name on the Hub"
            )
        store.verify()
