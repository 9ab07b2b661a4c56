"""Connections of clients that say nothing, say it slowly, or never read: each has its time, and there is a cap.

uvicorn has none of it: a connection that has sent no request is kept for ever, and so is an answer nobody reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol

SLOWEST = 2**16  # bytes a second that a client must read of an answer
ACCEPTED_AT_ONCE = 128  # connections that asyncio accepts before it looks at the first of them
FILES_KEPT = 64  # descriptors for what a search opens, such as shards that are mapped
QUIET = 60.0  # seconds in which a message of the server is logged once
# What clients can make the server log as often as they like.
REPEATED = (
    "socket.accept() out of system resource",
    "Invalid HTTP request received",
    "Unsupported upgrade request",
    "No supported WebSocket library",
)
REASON = b'{"detail":"too many connections are open: try again later"}'
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
REFUSAL += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(REASON), REASON)


class Limits(NamedTuple):
    """What a connection may take.

    Attributes:
        connections: open at a time; one more is answered with 503.
        idle_seconds: from its beginning, or from the last answer, to the end of a request's headers.
        answer_seconds: to read an answer, and one more for every 64 KiB of it.
        backlog: connections accepted at once.
    """

    connections: int
    idle_seconds: float
    answer_seconds: float
    backlog: int


def guarded(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol with limits, for `uvicorn.Config(http=...)`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})


class GuardedProtocol(H11Protocol):
    """A connection that ends when its client is too slow; made by `guarded`."""

    limits: Limits
    _idle: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse one too many."""
        if len(self.connections) >= self.limits.connections:
            self._refused = True
            transport.write(REFUSAL)
            transport.close()
            self._unread = self.loop.call_later(self.limits.idle_seconds, transport.abort)
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # told of every answer that the client has not read at once
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        _cancel(self._idle, self._unread)
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the body has a time of its own (`clients.read_body`)."""
        if self._refused:
            return
        super().data_received(data)
        if self._answering:
            _cancel(self._idle)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self._answering:
            self._wait_for_request()

    def pause_writing(self) -> None:
        """The client has not read everything: from now on it has so many seconds."""
        if self._refused:
            return
        super().pause_writing()
        if self._unread is None:
            seconds = self.limits.answer_seconds + self.transport.get_write_buffer_size() / SLOWEST
            self._unread = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read everything."""
        _cancel(self._unread)
        self._unread = None
        if not self._refused:
            super().resume_writing()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_request(self) -> None:
        _cancel(self._idle)
        self._idle = self.loop.call_later(self.limits.idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        if not self._answering and self._unread is None:
            self.transport.close()


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()


def limits_of(connections: int, idle_seconds: float, answer_seconds: float) -> Limits:
    """The limits, with no more connections than this process may open files.

    Raises:
        OSError: it may open too few for any; says how many it may.
    """
    allowed = _files_allowed()
    if allowed is None:
        return Limits(connections, idle_seconds, answer_seconds, ACCEPTED_AT_ONCE)
    free = allowed - _files_open() - FILES_KEPT
    backlog = max(1, min(ACCEPTED_AT_ONCE, free // 2))
    if free - backlog < 1:
        raise OSError(f"this process may open {allowed} files, which is too few to serve: raise it with `ulimit -n`")
    if free - backlog < connections:
        logging.getLogger(__name__).warning(
            "this process may open %s files: %s connections are served at a time, not %s (see `ulimit -n`)",
            allowed,
            free - backlog,
            connections,
        )
    return Limits(min(connections, free - backlog), idle_seconds, answer_seconds, backlog)


def _files_allowed() -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _files_open() -> int:
    return len(os.listdir("/dev/fd"))


class OnceAWhile(logging.Filter):
    """Lets the messages that clients can provoke pass once a minute: they must not be able to fill a disk."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is another message, or was not logged for a minute."""
        message = next((start for start in REPEATED if str(record.msg).startswith(start)), None)
        if message is None:
            return True
        now = time.monotonic()
        if now - self._passed.get(message, -QUIET) < QUIET:
            return False
        self._passed[message] = now
        return True


class ClosesWhenStopping:
    """ASGI middleware that tells clients to close while the service stops, so that they do not ask again here."""

    def __init__(self, app: Any, stopping: Any) -> None:
        """`stopping` says whether it does."""
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start" and self._stopping():
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, marked)
