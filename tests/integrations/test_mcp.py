"""MCP: the SDK's own client asks a real server, in a process of its own over stdio and over HTTP, and in this one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the extra `mcp`")

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from amer.integrations.mcp import create_server
from tests.integrations.conftest import PARTS, QUESTION, Folders
from tests.integrations.test_docs import parts_shown, sections
from tests.milvus_server import free_port

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}


def command(folders: Folders, *options: str) -> list[str]:
    return ["-m", "amer", "mcp", "--model", folders.model, "--store", folders.store, "--device", "cpu", *options]


def wait_for_listener(server: subprocess.Popen, port: int) -> None:
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"the server ended: {server.communicate()[1]}")


async def check(client: Client, searcher: Any) -> None:
    """What an agent does: look at the tools, search, read what was found."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search", "fetch"}
    assert "year (int64), language (string), url (string)" in tools["search"].description
    assert tools["search"].input_schema["required"] == ["query"]
    assert all(tool.annotations.read_only_hint for tool in tools.values())

    found = await client.call_tool("search", {"query": QUESTION, "k": 6})
    answer = found.structured_content
    assert not found.is_error and json.loads(found.content[0].text) == answer
    (hits,) = searcher.search(QUESTION, k=6, attribute=True)
    assert answer["parts"] == PARTS
    assert [(one["id"], one["part"], one["url"]) for one in answer["results"]] == [
        (hit.id, hit.part, hit.metadata["url"]) for hit in hits
    ]
    assert {one["part"] for one in answer["results"]} == set(PARTS)

    read = (await client.call_tool("fetch", {"id": hits[0].id})).structured_content
    assert read == {
        "id": hits[0].id,
        "title": hits[0].title,
        "text": hits[0].text,
        "url": hits[0].metadata["url"],
        "metadata": dict(hits[0].metadata),
    }


@pytest.mark.slow
def test_a_client_starts_the_command_and_asks_it(folders, searcher):
    server = StdioServerParameters(command=sys.executable, args=command(folders), env=ENVIRONMENT)

    async def ask() -> None:
        async with Client(stdio_client(server)) as client:
            await check(client, searcher)

    asyncio.run(asyncio.wait_for(ask(), 120))


@pytest.mark.slow
@pytest.mark.server
def test_a_client_asks_over_http(folders, searcher, capsys):
    port = free_port()
    options = command(folders, "--transport", "http", "--port", str(port))
    server = subprocess.Popen([sys.executable, *options], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}/mcp"

    async def ask() -> None:
        async with Client(address) as client:
            await check(client, searcher)

    try:
        wait_for_listener(server, port)
        asyncio.run(asyncio.wait_for(ask(), 120))
        ((code, output),) = sections()["Agents: the Model Context Protocol"]
        exec(code.replace("http://127.0.0.1:8000/mcp", address), {})
        assert parts_shown(capsys.readouterr().out) == parts_shown(output)
    finally:
        server.terminate()
        errors = server.communicate(timeout=20)[1]
    assert f"ready: {address}" in errors and "Traceback" not in errors


@asynccontextmanager
async def asked(searcher: Any) -> AsyncIterator[Client]:
    """A client of a server in this process."""
    async with Client(create_server(searcher)) as client:
        yield client


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search", {"query": QUESTION, "filter": "colour == 'red'"}, "there is no field 'colour'"),
        ("search", {"query": QUESTION, "k": 0}, "greater than or equal to 1"),
        ("search", {"query": QUESTION, "k": 101}, "less than or equal to 100"),
        ("search", {"query": ""}, "at least 1 character"),
        ("search", {}, "Field required"),
        ("fetch", {"id": "nowhere"}, "there is no document with the id 'nowhere': use an id from a search result"),
    ],
)
def test_an_agent_is_told_what_was_wrong(searcher, tool, arguments, message):
    async def ask() -> None:
        async with asked(searcher) as client:
            answer = await client.call_tool(tool, arguments)
            assert answer.is_error and message in answer.content[0].text

    asyncio.run(ask())


def test_a_filter_is_applied(searcher):
    async def ask() -> None:
        async with asked(searcher) as client:
            answer = await client.call_tool("search", {"query": QUESTION, "filter": "year >= 1994"})
            assert sorted(one["id"] for one in answer.structured_content["results"]) == ["d4", "d5", "d6"]

    asyncio.run(ask())


def test_a_search_does_not_keep_others_waiting(slow_searcher):
    async def ask() -> None:
        async with asked(slow_searcher) as client:
            searching = asyncio.ensure_future(client.call_tool("search", {"query": QUESTION}))
            await client.call_tool("fetch", {"id": "d0"})
            assert not searching.done()
            slow_searcher.turned.set()
            assert not (await searching).is_error

    asyncio.run(asyncio.wait_for(ask(), 15))
