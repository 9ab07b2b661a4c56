"""Import vectors that were computed elsewhere into a document store, export a store, or verify every byte of one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from amer.corpus import DocumentStore, open_documents
from amer.corpus.exporting import export_npy, export_parquet
from amer.corpus.importing import EMBEDDING, import_table, import_vectors
from amer.hub import pull_folder


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="make a store of documents and their vectors")
    importing.add_argument("--output", required=True, help="directory of the new store")
    importing.add_argument("--encoder", required=True, help="name of the model that made the vectors")
    importing.add_argument("--revision", help="the encoder's commit on the Hub")
    importing.add_argument("--document_prompt", default="", help="what was put before every document")
    importing.add_argument("--query_prompt", default="", help="what is to be put before every question")
    source = importing.add_mutually_exclusive_group(required=True)
    source.add_argument("--vectors", help="a .npy file of (n, dim), or a FAISS index; with --documents")
    source.add_argument("--table", help="documents with a column of vectors: .parquet, a saved dataset, or org/name")
    importing.add_argument("--documents", help="the corpus of --vectors: a .parquet file or a folder of Arrow parts")
    importing.add_argument(
        "--embedding", default=EMBEDDING, help=f"--table's column of vectors (default: {EMBEDDING})"
    )
    importing.add_argument("--split", default="train", help="of a --table on the Hub (default: train)")
    importing.add_argument("--normalize", action="store_true", help="bring every vector to length 1")
    importing.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="(default: float16)")
    exporting = commands.add_parser("export", help="write a store's vectors, or documents and vectors, into one file")
    exporting.add_argument("store", help="a folder or a name on the Hub")
    target = exporting.add_mutually_exclusive_group(required=True)
    target.add_argument("--npy", type=Path, help="the vectors, for NumPy, torch and sentence-transformers")
    target.add_argument("--parquet", type=Path, help="documents, metadata and vectors, for datasets")
    verifying = commands.add_parser("verify", help="read everything: checksums, lengths of vectors, ids")
    verifying.add_argument("store", help="a folder or a name on the Hub")
    parsed = parser.parse_args(arguments)
    if parsed.command == "import" and (parsed.vectors is None) != (parsed.documents is None):
        importing.error("--vectors and --documents go together; --table has both")
    return parsed


def open_table(name: str, split: str) -> Any:
    """A parquet file as it is, else a dataset: saved in a folder, or on the Hub."""
    if Path(name).is_file():
        return name
    import datasets

    return datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name, split=split)


def import_store(given: argparse.Namespace) -> DocumentStore:
    """The store of what the command line names."""
    encoder = {
        "name": given.encoder,
        "revision": given.revision,
        "document_prompt": given.document_prompt,
        "query_prompt": given.query_prompt,
    }
    options = {"normalize": given.normalize, "dtype": given.dtype}
    if given.table is not None:
        table = open_table(given.table, given.split)
        return import_table(given.output, table, encoder, given.embedding, **options)
    return import_vectors(given.output, open_documents(given.documents), given.vectors, encoder, **options)


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line asks for, and say what came of it."""
    given, console = parse_arguments(arguments), Console()
    if given.command == "import":
        store = import_store(given)
        console.print(
            f"{store.path}: {len(store):,} documents, {store.dim} values each, {store.dtype}",
            markup=False,
            soft_wrap=True,
        )
        return
    store = DocumentStore.open(pull_folder(given.store))
    if given.command == "verify":
        store.verify()
        console.print(
            f"{store.path}: all of its {len(store):,} documents are as they were written", markup=False, soft_wrap=True
        )
    elif given.npy is not None:
        export_npy(store, given.npy)
        console.print(
            f"{given.npy}: {len(store):,} vectors of {store.dim} values, {store.dtype}", markup=False, soft_wrap=True
        )
    else:
        export_parquet(store, given.parquet)
        console.print(f"{given.parquet}: {len(store):,} documents with their vectors", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
