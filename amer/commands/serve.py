"""`amer serve`: search over HTTP."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from amer.commands.fields import with_fields
from amer.commands.options import (
    COLLECTION,
    Collection,
    Device,
    Dtype,
    Index,
    Model,
    Revision,
    Store,
    TrustRemoteCode,
)
from amer.service.settings import Settings


@with_fields
def serve(
    model: Model,
    store: Store,
    index: Index = None,
    collection: Collection = COLLECTION,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 picks a free one.")] = 8000,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
    dtype: Dtype = None,
    examples: Annotated[
        list[str] | None,
        typer.Option("--example", metavar="QUESTION", help="A question that the page offers. May be repeated."),
    ] = None,
    *,
    settings: Settings,
) -> None:
    """Serve a model and a document store over HTTP, with a page to try them in a browser.

    On an interrupt or termination signal, it answers open requests and exits. If the environment variable
    AMER_API_KEY is set, clients need that key.
    """
    import logging

    from amer.search import Searcher
    from amer.service import serve as serve_searcher

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("amer").setLevel(logging.INFO)
    searcher = Searcher.from_pretrained(
        model,
        store,
        index,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=revision,
        collection=collection,
        dtype=dtype,
        timeout=settings.timeout_seconds,
    )
    searcher.search("warm up")  # loads everything before the first client
    serve_searcher(searcher, settings, host, port, os.environ.get("AMER_API_KEY"), examples or ())
