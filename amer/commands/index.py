"""`amer index`: indexes of document stores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from amer.commands.opening import open_store
from amer.commands.options import COLLECTION, Store
from amer.commands.terminal import say

app = typer.Typer(
    no_args_is_help=True, help="Build the index of a document store. Exact search, for up to a million, needs none."
)

GIB = 2**30


@app.command()
def build(
    store: Store,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the index.")],
    preset: Annotated[str, typer.Option(help="auto, flat, ivfpq, hnsw, or a factory string of FAISS.")] = "auto",
    recall: Annotated[float, typer.Option(min=0, max=1, help="Of the k nearest, tuned for.")] = 0.95,
    k: Annotated[int, typer.Option(min=1, help="Documents of the lists that are tuned.")] = 100,
    memory: Annotated[
        float | None, typer.Option(help="GiB that the index may take. What is free when not given.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help=".npy file of (n, dim) vectors to tune with. Documents' own when not given."),
    ] = None,
) -> None:
    """Build a FAISS index in a folder.

    It is mapped into memory when it is searched. Run it again after an interruption to resume. For Milvus see
    `amer index milvus`.
    """
    from amer.files import open_npy
    from amer.ranges import Range
    from amer.search import FaissIndex

    if memory is not None and memory not in Range(0, above=True):
        raise typer.BadParameter(f"--memory must {Range(0, above=True)}; got {memory}")
    if queries is not None and queries.suffix.lower() != ".npy":
        raise typer.BadParameter(f"--queries {queries}: vectors are read from a .npy file, `numpy.save` writes one")
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
    uri: Annotated[str, typer.Option(help="Address of a server or cluster, http://host:19530, or a file, *.db.")],
    collection: Annotated[str, typer.Option(help="Its name there.")] = COLLECTION,
    index_type: Annotated[str, typer.Option(help="FLAT, HNSW, IVF_SQ8, DISKANN, ...")] = "HNSW",
) -> None:
    """Build the index in Milvus.

    Milvus is a server, a cluster, or a file without a server. Run it again after an interruption to
    resume. The server's key is read from $MILVUS_TOKEN.
    """
    from amer.search import MilvusIndex

    opened = open_store(store)
    index = MilvusIndex.build(opened, uri, collection, index_type, token=os.environ.get("MILVUS_TOKEN", ""))
    index.close()
    say(f"{uri}: collection {collection}, {index.index_type}, {len(opened):,} documents")
