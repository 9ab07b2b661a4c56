"""Describes the data, model and machine behind results, in terms that are valid on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amer.corpus.store import DocumentStore
from amer.files import read_json
from amer.hub import origin, public_name
from amer.machine import hardware, hardware_line, versions


def metadata_of(model: str, dataset: str, folder: Path, split: str, store: DocumentStore) -> dict[str, Any]:
    """Describe model, data and document encoder for a report's metadata.

    Args:
        model: A folder or a name on the Hub.
        dataset: A folder or a name on the Hub, as the user gave it.
        folder: Local folder of the dataset.
        split: Name of the split.
        store: The store that is searched.
    """
    info, found = read_json(folder / "dataset.json"), origin(dataset, folder)
    return {
        "model": public_name(model),
        "dataset": info.get("source") or found.get("repo_id") or found["name"],
        **({"dataset_id": found["repo_id"]} if "repo_id" in found else {}),
        "split": split,
        "corpus": f"{len(store):,} documents",
        "document encoder": store.encoder["name"],
    }


def machine_of(device: str) -> dict[str, str]:
    """Describe the machine and the versions of packages."""
    return {
        "machine": hardware_line(hardware(device)),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
