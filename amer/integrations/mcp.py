"""AMER for agents: a Model Context Protocol server with the tools `search` and `fetch`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from amer import __version__
from amer.extras import needs_extra
from amer.search import Searcher
from amer.search.attribution import text_of
from amer.search.showing import excerpt

with needs_extra("mcp", "amer mcp"):
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

Transport = Literal["stdio", "http"]
MOST_DOCUMENTS = 100  # per answer, since a prompt has no room for more
MOST_CHARACTERS = 500  # per document in a search result
SEARCH = (
    "Search a collection of documents. The question may ask for several things at once: it is split, and each part is "
    "searched on its own. Each result says which part it answers. Use fetch to read a whole document. "
)
FETCH = "Read a whole document that search found."


class Result(BaseModel):
    """A document that was found."""

    id: str = Field(description="the ID to give to fetch")
    title: str
    text: str = Field(description="the beginning of the document")
    url: str = Field(description="the source of the document; empty if unknown")
    part: str = Field(description="the part of the question that the document answers; empty if unknown")
    query_vector: int = Field(description="the query vector that found it, from 0: one for each part")
    score: float = Field(description="similarity to that query vector")


class Results(BaseModel):
    """The results of a search."""

    parts: list[str] = Field(description="the parts of the question, one for each query vector")
    results: list[Result] = Field(description="best first; the parts take turns")


class Document(BaseModel):
    """A whole document."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, Any]


def create_server(searcher: Searcher) -> MCPServer[Any]:
    """Create a server whose tools search and read the documents of a searcher. `serve` runs it.

    Raises:
        ImportError: The extra `mcp` is not installed.
    """
    fields = ", ".join(f"{name} ({kind})" for name, kind in searcher.store.metadata.items())
    filters = f"A filter can compare these fields: {fields}." if fields else "There are no fields to filter by."

    def search(
        query: Annotated[str, Field(min_length=1, description="the question, in plain words")],
        k: Annotated[int, Field(ge=1, le=MOST_DOCUMENTS, description="how many documents")] = 10,
        filter: Annotated[
            str | None,
            Field(description='condition on the fields, such as: year >= 1990 and language == "en"'),
        ] = None,
    ) -> Results:
        try:
            (hits,) = searcher.search(query, k, filter=filter)
            parts = searcher.parts(query)
        except (ValueError, OSError) as error:
            raise ToolError(str(error)) from error
        results = [
            Result(
                id=hit.id,
                title=hit.title,
                text=excerpt(hit.text, MOST_CHARACTERS),
                url=str(hit.metadata.get("url", "")),
                part=text_of(parts, hit.found_by),
                query_vector=hit.found_by,
                score=hit.score,
            )
            for hit in hits
        ]
        return Results(parts=[part.text for part in parts], results=results)

    def fetch(id: Annotated[str, Field(description="ID of a document from a search result")]) -> Document:
        try:
            (found,) = searcher.store.documents(searcher.store.rows_of([id]))
        except ValueError:
            raise ToolError(f"there is no document with the id {id!r:.200}: use an id from a search result") from None
        text = {name: found.pop(name) for name in ("id", "title", "text")}
        return Document(**text, url=str(found.get("url", "")), metadata=found)

    server: MCPServer[Any] = MCPServer("amer", version=__version__, log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    server.add_tool(search, description=SEARCH + filters, annotations=reads)
    server.add_tool(fetch, description=FETCH, annotations=reads)
    return server


def serve(searcher: Searcher, transport: Transport = "stdio", host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve one client over standard input and output until it closes them, or many clients over HTTP until a signal.

    Args:
        searcher: The searcher that the tools use.
        transport: "stdio", or "http" for MCP's streamable HTTP at `http://host:port/mcp`.
        host: Address to listen on. The server requires no key, so keep 127.0.0.1 unless a proxy in front requires one.
        port: Port to listen on.

    Raises:
        ImportError: The extra `mcp` is not installed.
    """
    server = create_server(searcher)
    if transport == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host=host, port=port, stateless_http=True)
