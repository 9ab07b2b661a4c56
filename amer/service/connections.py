"""Limit connections: time limits for clients that are idle, send slowly or do not read, and a maximum number.

uvicorn has no such limits: it keeps a connection without a request, or with an unread answer, forever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol

SLOWEST = 2**16  # least speed in bytes per second at which a client must read an answer
ACCEPTED_AT_ONCE = 128  # connections that asyncio accepts before it handles the first
FILES_KEPT = 64  # file descriptors reserved for searches, such as for mapped shards
QUIET = 60.0  # seconds in which the same message is logged only once
# Messages that clients can trigger without limit.
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
    """Limits of connections.

    Attributes:
        connections: Most open connections. Another one is answered with 503.
        idle_seconds: Seconds from the start of a connection, or from its last answer, to the end of a request's
            headers.
        answer_seconds: Seconds to read an answer, plus one second per 64 KiB.
        backlog: Connections to accept at once.
    """

    connections: int
    idle_seconds: float
    answer_seconds: float
    backlog: int


def guarded(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's protocol with limits, for `uvicorn.Config(http=...)`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})


class GuardedProtocol(H11Protocol):
    """A connection that closes if its client is too slow. Made by `guarded`."""

    limits: Limits
    _idle: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or refuse it if too many are open."""
        if len(self.connections) >= self.limits.connections:
            self._refused = True
            transport.write(REFUSAL)
            transport.close()
            self._unread = self.loop.call_later(self.limits.idle_seconds, transport.abort)
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # call pause_writing for every answer that is not read at once
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection."""
        _cancel(self._idle, self._unread)
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read data. The body has its own time limit (`clients.read_body`)."""
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
        """Start the time limit for a client that has not read its whole answer."""
        if self._refused:
            return
        super().pause_writing()
        if self._unread is None:
            seconds = self.limits.answer_seconds + self.transport.get_write_buffer_size() / SLOWEST
            self._unread = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the time limit: the client has read everything."""
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
    """Return the limits, with fewer connections if this process may not open so many files.

    Raises:
        OSError: The process may open too few files for any connection. The message says how many.
    """
    allowed = _files_allowed()
    if allowed is None:
        return Limits(connections, idle_seconds, answer_seconds, ACCEPTED_AT_ONCE)
    free = allowed - _files_open() - FILES_KEPT
    backlog = max(1, min(ACCEPTED_AT_ONCE, free // 2))
    if free - backlog < 1:
        raise OSError(
            f"this process may open {allowed} files, which is too few to serve: raise the limit with `ulimit -n`"
        )
    if free - backlog < connections:
        logging.getLogger(__name__).warning(
            "this process may open %s files: it serves %s connections at a time, not %s (raise `ulimit -n` for more)",
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
    """Logs messages that clients can trigger only once a minute, so that they cannot fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the message: it is not one of these, or was not logged within a minute."""
        message = next((start for start in REPEATED if str(record.msg).startswith(start)), None)
        if message is None:
            return True
        now = time.monotonic()
        if now - self._passed.get(message, -QUIET) < QUIET:
            return False
        self._passed[message] = now
        return True


class ClosesWhenStopping:
    """ASGI middleware that tells clients to close their connections while the service stops."""

    def __init__(self, app: Any, stopping: Any) -> None:
        """Wrap an application. `stopping` returns whether the service is stopping."""
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start" and self._stopping():
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, marked)
