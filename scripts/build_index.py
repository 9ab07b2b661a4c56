"""Build the index of a document store, with FAISS in a folder or in Milvus; run it again after an interruption."""

from __future__ import annotations

import argparse
import os

import numpy as np
from rich.console import Console

from amer.corpus import DocumentStore
from amer.hub import pull_folder
from amer.search import FaissIndex, MilvusIndex
from amer.search.index.opening import COLLECTION

GIB = 2**30


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__)
    engines = parser.add_subparsers(dest="engine", required=True)
    in_folder = engines.add_parser("faiss", help="in a folder, mapped into memory when it is searched")
    in_folder.add_argument("--output", required=True, help="folder of the index")
    in_folder.add_argument("--index", default="auto", help="auto, flat, ivfpq, hnsw or a factory string of FAISS")
    in_folder.add_argument("--recall", type=float, default=0.95, help="of the k nearest, tuned for (default: 0.95)")
    in_folder.add_argument("--k", type=int, default=100, help="documents of the lists that are tuned (default: 100)")
    in_folder.add_argument("--memory", type=float, help="GiB that the index may take (default: what is free)")
    in_folder.add_argument("--queries", help=".npy of (n, dim) vectors to tune with (default: documents' own)")
    in_folder.set_defaults(build=build_faiss)
    in_server = engines.add_parser("milvus", help="in a file without a server, on a server, or on a cluster")
    in_server.add_argument("--uri", required=True, help="http://host:19530, or a file that ends in .db")
    in_server.add_argument("--collection", default=COLLECTION, help=f"its name there (default: {COLLECTION})")
    in_server.add_argument("--index", default="HNSW", help="FLAT, HNSW, IVF_SQ8, DISKANN, ... (default: HNSW)")
    in_server.set_defaults(build=build_milvus)
    for command in (in_folder, in_server):
        command.add_argument("--store", required=True, help="the document store: a folder or a name on the Hub")
    return parser.parse_args(arguments)


def build_faiss(store: DocumentStore, given: argparse.Namespace) -> str:
    """Build in a folder; says what came out."""
    index = FaissIndex.build(
        store,
        given.output,
        given.index,
        recall=given.recall,
        k=given.k,
        memory=None if given.memory is None else int(given.memory * GIB),
        queries=None if given.queries is None else np.load(given.queries, allow_pickle=False),
    )
    return f"{given.output}: {index!r}"


def build_milvus(store: DocumentStore, given: argparse.Namespace) -> str:
    """Build in Milvus, whose key is read from the environment; says what came out."""
    token = os.environ.get("MILVUS_TOKEN", "")
    index = MilvusIndex.build(store, given.uri, given.collection, given.index, token=token)
    index.close()
    return f"{given.uri}: collection {given.collection}, {index.index_type}, {len(store):,} documents"


def main(arguments: list[str] | None = None) -> None:
    """Build what the command line asks for."""
    given = parse_arguments(arguments)
    store = DocumentStore.open(pull_folder(given.store))
    Console().print(given.build(store, given), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
