"""Handle clients that send too much, send too slowly, or disconnect before the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

DRAINED = 2**24  # bytes read beyond the limit: a client that is cut off while sending may never read the answer
Answer = TypeVar("Answer")


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Read a request's body. Never holds more bytes than allowed.

    Raises:
        HTTPException: 413 if the body is too large, 408 if it does not arrive in time.
        ClientDisconnect: The client has disconnected.
    """
    try:
        return await asyncio.wait_for(_read(request, max_bytes), seconds)
    except TimeoutError:
        raise HTTPException(408, f"the request has not arrived within {seconds} seconds: send it again") from None


async def _read(request: Request, max_bytes: int) -> bytes:
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= max_bytes:
            body += chunk
        elif size > max_bytes + DRAINED:
            break
    if size > max_bytes:
        raise HTTPException(413, f"the request has more than {max_bytes} bytes: send fewer questions per request")
    return bytes(body)


async def awaited_by_client(request: Request, work: Coroutine[Any, Any, Answer], seconds: float) -> Answer:
    """Await some work. Cancels it after `seconds`, or when the client disconnects. Read the request's body before.

    Raises:
        HTTPException: 504 if the time is up.
        ClientDisconnect: The client has disconnected.
        Exception: Any error of the work.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise ClientDisconnect
        raise HTTPException(
            504, f"no answer within {seconds} seconds: try again later, or send fewer questions per request"
        )
    finally:
        working.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
