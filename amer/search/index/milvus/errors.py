"""Errors of Milvus: which ones pass, and what they say."""

from __future__ import annotations

import re
from typing import Any

# Errors of Milvus 2.3 that are worth a retry, by code: the server is unavailable or overloaded, collections and
# partitions are not loaded yet (as after a restart), channels, segments and nodes are being replaced, or a part of the
# server waited in vain for another.
_PASSING = {
    2: "service unavailable",  # also of pymilvus, if it cannot connect
    4: "request limit exceeded",
    8: "rate limit exceeded",
    101: "collection not loaded",
    103: "collection not fully loaded",
    201: "partition not loaded",
    202: "partition not fully loaded",
    401: "replica not available",
    500: "channel not found",
    501: "channel lacks",
    503: "channel not available",
    601: "segment not loaded",
    602: "segment lacks",
    901: "node not found",
    902: "node offline",
    903: "node lacks",
    904: "node not match",
    905: "node not available",
    10000: "context canceled",
    10001: "context deadline exceeded",
}
# These codes mean "unexpected error", both for a restarting server and for a bad filter. So the message decides. It
# names one of the errors above, a coordinator that is starting, a call from one part of the server to another that
# was cut off, or, in pymilvus, a time-out or a channel that a reconnecting thread has closed.
_UNSPECIFIC_CODES = {1, 65535}
_PASSING_WORDS = re.compile(
    "|".join(
        [
            *_PASSING.values(),
            "service not ready",
            "empty grpc client",
            "code = (?:Unavailable|DeadlineExceeded|Canceled)",
            r"\btimeout\b",
            "closed channel",
            "channel closed",
        ]
    ),
    re.IGNORECASE,
)
# A stack trace of the server in a message: lines of a file with a line number, and a function.
_STACK_TRACE = re.compile(r"stack trace: (?:\S+\.(?:go|s):\d+ \S+\s*)+")
_LONGEST_MESSAGE = 500  # characters


def passes(error: Any) -> bool:
    """Return whether an error is temporary."""
    import grpc

    status = status_of(error)
    if status is not None:  # CANCELLED: another thread has replaced the broken connection
        return status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    worded = error.code in _UNSPECIFIC_CODES and _PASSING_WORDS.search(_message(error)) is not None
    return error.code in _PASSING or worded


def status_of(error: Any) -> Any:
    """Return the gRPC status of an error, or None if the server itself answered."""
    import grpc

    while error is not None and not isinstance(error, grpc.RpcError):
        if isinstance(getattr(error, "code", None), grpc.StatusCode):  # pymilvus has given up retrying
            return error.code
        error = None if error.__cause__ is error else error.__cause__  # pymilvus may set an error as its own cause
    return None if error is None else error.code()


def _message(error: Any) -> str:
    """Return the message of an error on one line, without the server's stack traces."""
    words = getattr(error, "message", None) or (error.details() if hasattr(error, "details") else str(error))
    return _STACK_TRACE.sub("", " ".join(str(words).split()))


def short_message(error: Any) -> str:
    """Return the start of the message of an error, for messages to the user."""
    return _message(error)[:_LONGEST_MESSAGE]
