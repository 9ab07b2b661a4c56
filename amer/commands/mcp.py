"""`amer mcp`: search for agents."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from amer.commands.options import COLLECTION, Collection, Device, Index, Model, Revision, Store, TrustRemoteCode


def mcp(
    model: Model,
    store: Store,
    index: Index = None,
    collection: Collection = COLLECTION,
    transport: Annotated[
        Literal["stdio", "http"],
        typer.Option(help="stdio for an agent that starts this command, http for agents that connect to it."),
    ] = "stdio",
    host: Annotated[str, typer.Option(help="Address to listen on, over HTTP. No key is asked for.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on, over HTTP.")] = 8000,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
) -> None:
    """Give agents the tools `search` and `fetch`, by the Model Context Protocol.

    The answers say which part of the question each document answers.
    """
    from amer.integrations.mcp import serve
    from amer.search import Searcher

    searcher = Searcher.from_pretrained(
        model,
        store,
        index,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=revision,
        collection=collection,
    )
    searcher.search("warm up")  # so that the first question need not wait
    if transport == "http":
        typer.echo(f"ready: http://{host}:{port}/mcp", err=True)
    serve(searcher, transport, host, port)
