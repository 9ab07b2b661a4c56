"""Cards of datasets, document stores and the MRecall metric."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import DatasetCardData

import amer.evaluation
from amer.corpus.store import DocumentStore
from amer.data.dataset import SPLITS
from amer.evaluation.markdown import markdown_table
from amer.files import parquet_batches, parquet_metadata, read_manifest
from amer.hub_cards.rendering import code, quoted, render, repository, revision
from amer.hub_cards.updating import assemble, split_card

METRIC = Path(amer.evaluation.__file__).parent / "metrics" / "mrecall"

LICENSES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
SIZE_CATEGORIES = (
    "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B",
)  # fmt: skip
COLUMNS = {
    "query_id": "unique within the split",
    "query": "the question",
    "query_vector": "the question as a vector",
    "targets": "the right answers, each a list of the ids of the documents that cover it",
    "answers": "for each target its names, where there are any",
    "spans": "for each target the start and the end, in characters, of the part of the question that asks for it",
}


def dataset_card(folder: str | os.PathLike[str], repo_id: str) -> str:
    """The card of a dataset directory (`amer.data.save_dataset_dir`); `datasets.load_dataset` reads it.

    Raises:
        FileNotFoundError: The directory has no `dataset.json` or no split.
    """
    folder = Path(folder)
    info = read_manifest(folder / "dataset.json", dict)
    files = {name: folder / f"{name}.parquet" for name in SPLITS if (folder / f"{name}.parquet").is_file()}
    if not files:
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(f'{name}.parquet' for name in SPLITS)}: give a dataset directory"
        )
    schema = parquet_metadata(next(iter(files.values()))).schema.to_arrow_schema()
    counts = {name: parquet_metadata(file).num_rows for name, file in files.items()}
    metadata = DatasetCardData(
        pretty_name=repo_id.rpartition("/")[2],
        task_categories=["text-retrieval"],
        size_categories=[_size_category(sum(counts.values()))],
        configs=_configs("default", {name: file.name for name, file in files.items()}),
        tags=["amer", "retrieval", "multi-answer"],
        **_license(info.get("licence"), folder),
    )
    first = next(parquet_batches(next(iter(files.values())), size=1)).to_pylist()[0]
    body = render(
        "dataset",
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        columns_table=markdown_table(
            ["Column", "Type", "What it is"],
            [[code(field.name), code(field.type), COLUMNS.get(field.name, "")] for field in schema],
            alignment="lll",
        ),
        splits_table=_splits_table(counts, info.get("splits", {})),
        split=next(iter(files)),
        example={name: value for name, value in first.items() if name != "query_vector"},
        has_vectors="query_vector" in schema.names,
        origin=list(_origin(info)),
        arguments=markdown_table(
            ["Argument", "Value"], ([code(k), code(v)] for k, v in info.get("arguments", {}).items())
        ),
        encoder=_encoder(info.get("query_vectors")),
    )
    return assemble(metadata.to_yaml(), body)


def store_card(folder: str | os.PathLike[str], repo_id: str) -> str:
    """The card of a document store; `datasets.load_dataset` reads its texts.

    Raises:
        FileNotFoundError, OSError, ValueError: As `DocumentStore.open`.
    """
    store = DocumentStore.open(folder)
    metadata = DatasetCardData(
        pretty_name=repo_id.rpartition("/")[2],
        task_categories=["text-retrieval"],
        size_categories=[_size_category(len(store))],
        configs=_configs("documents", {"corpus": "documents.parquet"}),
        tags=["amer", "retrieval", "embeddings", "document-store"],
    )
    embeddings = sorted(store.path.glob("embeddings-*.npy"))
    body = render(
        "store",
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        count=len(store),
        dim=store.dim,
        dtype=store.dtype,
        encoder=_encoder(store.encoder),
        first=embeddings[0].name,
        shards=len(embeddings),
        documents_size=(store.path / "documents.parquet").stat().st_size,
        embeddings_size=sum(file.stat().st_size for file in embeddings),
    )
    return assemble(metadata.to_yaml(), body)


def metric_card(repo_id: str) -> str:
    """The card of the MRecall metric as a Space: its folder's card, with the metric's name on the Hub."""
    front, body = split_card((METRIC / "README.md").read_text(encoding="utf-8"))
    call = f"evaluate.load({quoted(repo_id)})"
    return assemble(front.strip().strip("-"), re.sub(r"evaluate\.load\(.*\n", lambda match: f"{call}\n", body))


def _configs(name: str, files: dict[str, str]) -> list[dict[str, Any]]:
    """Metadata that tells the `datasets` library which file is which split."""
    return [{"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}]


class _License(TypedDict, total=False):
    license: str
    license_name: str
    license_link: str


def _license(licence: str | None, folder: Path) -> _License:
    """A licence as Hub metadata: one of its identifiers, or "other" with a name and the file of its text."""
    if not licence or licence.startswith("none"):
        return {}
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    if slug in LICENSES:
        return {"license": slug}
    texts = [path.name for path in sorted(folder.glob("LICENSE*"))]
    found: _License = {"license": "other", "license_name": slug}
    if texts:
        found["license_link"] = texts[0]
    return found


def _size_category(rows: int) -> str:
    return SIZE_CATEGORIES[max(0, min(len(str(rows)) - 3, len(SIZE_CATEGORIES) - 1))]


def _splits_table(counts: dict[str, int], details: dict[str, dict[str, int]]) -> str:
    """A table of the questions per split, with targets and documents if `dataset.json` counts them."""
    rows = []
    for name, queries in counts.items():
        detail = details.get(name, {})
        targets = detail.get("targets")
        mean = f"{targets / queries:.2f}" if targets else ""
        others = [f"{detail[key]:,}" if key in detail else "" for key in ("targets", "documents")]
        rows.append([name, f"{queries:,}", *others, mean])
    return markdown_table(["Split", "Questions", "Targets", "Documents", "Targets a question"], rows)


def _origin(info: dict[str, Any]) -> Iterator[str]:
    """The origin of a dataset, as far as its `dataset.json` records it."""
    if info.get("source"):
        yield f"Source: {info['source']}"
    if info.get("licence"):
        yield f"Licence: {info['licence']}"
    if info.get("builder"):
        yield f"Built by {code(info['builder'])}"
    if info.get("corpus"):
        yield f"Made for a corpus of {info['corpus']['documents']:,} documents, which are not in this repository"


def _encoder(identity: dict[str, Any] | None) -> str:
    """A document encoder in one line; empty if there is none."""
    if not identity:
        return ""
    prompts = [
        f"prompt of {what} {code(identity[key])}"
        for key, what in (("document_prompt", "documents"), ("query_prompt", "questions"))
        if identity.get(key)
    ]
    precision = [f"in {identity['dtype']}"] if identity.get("dtype", "float32") != "float32" else []
    return ", ".join([repository(identity["name"]) + revision(identity.get("revision")), *precision, *prompts])
