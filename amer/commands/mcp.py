"""`amer mcp`: search tools for agents."""

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
        typer.Option(help="stdio: the agent starts this command. http: agents connect to it."),
    ] = "stdio",
    host: Annotated[str, typer.Option(help="Address to listen on, for http. Clients need no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on, for http.")] = 8000,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
) -> None:
    """Offer agents the tools `search` and `fetch` over the Model Context Protocol.

    Each result names the part of the question that the document answers.
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
    searcher.search("warm up")  # loads everything before the first question
    if transport == "http":
        typer.echo(f"ready: http://{host}:{port}/mcp", err=True)
    serve(searcher, transport, host, port)
