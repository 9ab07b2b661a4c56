"""`amer index`: build indexes of document stores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from amer.commands.opening import open_store
from amer.commands.options import COLLECTION, Store
from amer.commands.terminal import say

app = typer.Typer(
    no_args_is_help=True,
    help="Build the index of a document store. Up to about 100,000 documents, exact search needs none.",
)

GIB = 2**30


@app.command()
def build(
    store: Store,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the index.")],
    preset: Annotated[str, typer.Option(help="auto, flat, ivfpq, hnsw, or a FAISS factory string.")] = "auto",
    recall: Annotated[
        float, typer.Option(min=0, max=1, help="Target of the tuning: recall of the k nearest documents.")
    ] = 0.95,
    k: Annotated[int, typer.Option(min=1, help="Documents per search during the tuning.")] = 100,
    memory: Annotated[
        float | None, typer.Option(help="Memory that the index may use, in GiB. Default: the free memory.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="A .npy file of (n, dim) vectors for the tuning. Default: vectors of documents."),
    ] = None,
) -> None:
    """Build a FAISS index in a folder.

    Search maps the index into memory. Run the command again after an interruption to resume. For Milvus, see
    `amer index milvus`.
    """
    from amer.files import open_npy
    from amer.ranges import Range
    from amer.search import FaissIndex

    if memory is not None and memory not in Range(0, above=True):
        raise typer.BadParameter(f"--memory must {Range(0, above=True)}; got {memory}")
    if queries is not None and queries.suffix.lower() != ".npy":
        raise typer.BadParameter(f"--queries {queries}: give a .npy file of vectors, as written by `numpy.save`")
    tuned_with = None if queries is None else open_npy(queries)

    index = FaissIndex.build(
        open_store(store),
        output,
        preset,
        recall=recall,
        k=k,
        memory=None if memory is None else int(memory * GIB),
        queries=tuned_with,
    )
    say(f"{output}: {index!r}")


@app.command()
def milvus(
    store: Store,
    uri: Annotated[
        str,
        typer.Option(help="Address of a server or cluster (http://host:19530), or a file (*.db) without a server."),
    ],
    collection: Annotated[str, typer.Option(help="Name of the collection in Milvus.")] = COLLECTION,
    index_type: Annotated[str, typer.Option(help="FLAT, HNSW, IVF_SQ8, DISKANN, ...")] = "HNSW",
) -> None:
    """Build the index in Milvus.

    Milvus may be a server, a cluster, or a local file. Run the command again after an interruption to resume. The
    server's key is read from $MILVUS_TOKEN.
    """
    from amer.search import MilvusIndex

    opened = open_store(store)
    index = MilvusIndex.build(opened, uri, collection, index_type, token=os.environ.get("MILVUS_TOKEN", ""))
    index.close()
    say(f"{uri}: collection {collection}, {index.index_type}, {len(opened):,} documents")
