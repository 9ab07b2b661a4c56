"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Option(help="A trained AMER model: a folder or a name on the Hub.")]
Dataset = Annotated[str, typer.Option(help="The dataset: a folder or a name on the Hub.")]
Store = Annotated[str, typer.Option(help="The document store: a folder or a name on the Hub.")]
Split = Annotated[str, typer.Option(help="Split of the dataset.")]
Index = Annotated[
    str | None,
    typer.Option(help="A FAISS index's folder, or the address or file of Milvus. Default: exact search."),
]
Collection = Annotated[
    str, typer.Option(help="Name of the collection in Milvus. The server's key is read from $MILVUS_TOKEN.")
]
NumQueryVectors = Annotated[
    int | None, typer.Option(min=1, help="Query vectors per question. Default: the model's own number or choice.")
]
Device = Annotated[str | None, typer.Option(help="Device to run on. Default: a GPU if there is one.")]
WorkerDevice = Annotated[
    str | None, typer.Option(help="Device to run on. Default: one GPU per process if there are any.")
]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of the model on the Hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Allow the document encoder to run its own code.")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(
        help="Precision of the model's computation; auto picks the faster one here. Default: the saved precision."
    ),
]

COLLECTION = "amer"
