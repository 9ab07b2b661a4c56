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
    typer.Option(help="A FAISS index's folder, or Milvus' address or file. Exact search when not given."),
]
Collection = Annotated[str, typer.Option(help="Collection in Milvus, whose key is in $MILVUS_TOKEN.")]
NumQueryVectors = Annotated[
    int | None, typer.Option(min=1, help="Query vectors of each question. The model's own when not given.")
]
Device = Annotated[str | None, typer.Option(help="Where it runs. A GPU if there is one when not given.")]
WorkerDevice = Annotated[
    str | None, typer.Option(help="Where it runs. Each process takes a GPU of its own when not given.")
]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of the model on the Hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that the document encoder brings along.")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    typer.Option(help="What the model computes in; auto is the faster here. As it was saved when not given."),
]

COLLECTION = "amer"
