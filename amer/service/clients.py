"""Clients that send too much, send too slowly, or leave before they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

DRAINED = 2**24  # bytes read beyond the limit: a client that is cut off while it sends may never read the answer
Answer = TypeVar("Answer")


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """A request's body; no more of it than allowed is ever held.

    Raises:
        HTTPException: 413, it has more bytes; 408, it has not arrived in time.
        ClientDisconnect: the client has gone.
    """
    try:
        return await asyncio.wait_for(_read(request, max_bytes), seconds)
    except TimeoutError:
        raise HTTPException(408, f"the request has not arrived within {seconds} seconds") from None


async def _read(request: Request, max_bytes: int) -> bytes:
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            body += chunk
        elif size > max_bytes + DRAINED:
            break
    if size > max_bytes:
        raise HTTPException(413, f"the request has more than {max_bytes} bytes: send fewer questions at a time")
    return bytes(body)


async def awaited_by_client(request: Request, work: Coroutine[Any, Any, Answer], seconds: float) -> Answer:
    """The result of some work, which is cancelled when time is up or the client goes; the body must have been read.

    Raises:
        HTTPException: 504, time is up.
        ClientDisconnect: the client has gone.
        Exception: whatever the work raises.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise ClientDisconnect
        raise HTTPException(
            504, f"no answer within {seconds} seconds: try again later, or ask fewer questions at a time"
        )
    finally:
        working.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
