"""A connection to Milvus that waits for a server that is away, and says what was being done when it stays away."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from amer.extras import import_extra

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Answer = TypeVar("Answer")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds between attempts
CONNECT_SECONDS = 10.0  # longest that one attempt to connect takes
# What passes by itself, by the codes of Milvus 2.3: a server that is unavailable (2, also pymilvus' if it cannot
# connect) or overloaded (4, 8); collections and partitions not loaded yet (101, 103, 201, 202), as after a restart;
# channels, segments and nodes that are being replaced (501, 503, 601, 602, 901 to 905). Every other answer is final.
PASSING_CODES = {2, 4, 8, 101, 103, 201, 202, 501, 503, 601, 602, *range(901, 906)}
# These say "unexpected", of a starting server as of a bad filter, so the words tell: those of coordinators that start,
# and pymilvus' own for a time-out and for a channel that another thread, which connects anew, has closed.
UNSPECIFIC_CODES = {1, 65535}
PASSING_WORDS = re.compile("service not ready|find no available|timeout|closed channel|channel closed", re.IGNORECASE)


class MilvusConnection:
    """A client of Milvus whose calls are repeated, ever more slowly, until they are answered or their time is over.

    Safe to use from several threads. A call may have been carried out although its answer was lost, and is then
    carried out twice: only calls that may be repeated belong here.

    Attributes:
        uri: a file that ends in ".db" (Milvus Lite, in this process) or the address of a server or cluster.
        timeout: seconds for every call with all its repetitions.
        lite: whether this is Milvus Lite.
    """

    def __init__(self, uri: str, token: str = "", timeout: float = 60.0) -> None:
        """Connect.

        Args:
            uri: see above.
            token: "user:password" or an API key, where the server asks for one.
            timeout: see above.

        Raises:
            ImportError: pymilvus or, for a file, milvus-lite is not installed.
            OSError: nobody answers, or another process has the file open.
            ValueError: neither a file nor an address, a timeout that is not positive.
        """
        self.lite = "://" not in uri
        if self.lite and not uri.endswith(".db"):
            raise ValueError(
                f"Milvus is at a file that ends in .db or at an address like http://host:19530, got {uri!r}"
            )
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
        self.uri, self.timeout = uri, timeout
        self._token = token
        self._client: MilvusClient | None = None
        self._connecting = threading.Lock()
        _import_pymilvus(self.lite)
        if self.lite:
            Path(uri).absolute().parent.mkdir(parents=True, exist_ok=True)
        self.call("connect", lambda client, seconds: client.get_server_version(timeout=seconds))

    def call(self, doing: str, request: Callable[[MilvusClient, float], Answer]) -> Answer:
        """Ask until there is an answer.

        Args:
            doing: what the request does, for messages: "connect".
            request: given the client and the seconds left.

        Raises:
            ConnectionError: the server cannot be reached or is not ready, and the time is over.
            TimeoutError: it has not answered in time.
            PermissionError: it asks for another token.
            ValueError: it refuses the request.
        """
        import grpc
        from pymilvus.exceptions import MilvusException

        deadline, pause = time.monotonic() + self.timeout, FIRST_PAUSE
        while True:
            try:
                left = max(deadline - time.monotonic(), 0.001)
                return request(self._connected(left), left)
            except (MilvusException, grpc.RpcError) as error:
                self._refuse(doing, error)
                if time.monotonic() + pause >= deadline:
                    raise self._given_up(doing, error) from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """Close the connection; another call would open it again."""
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self, seconds: float) -> MilvusClient:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import ConnectionConfigException

        with self._connecting:
            if self._client is None:
                try:
                    limit = min(seconds, CONNECT_SECONDS)
                    # A connection of its own: pymilvus would hand a broken one to everybody who asks for the address.
                    self._client = MilvusClient(self.uri, token=self._token, timeout=limit, dedicated=True)
                except ConnectionConfigException as error:
                    if not self.lite:
                        raise ValueError(f"{self.uri!r} is no address of Milvus: {error.message}") from error
                    raise OSError(
                        f"{self.uri} cannot be opened ({error.message}): another process has it open, or it is damaged"
                    ) from error
            return self._client

    def _refuse(self, doing: str, error: Any) -> None:
        """Raise if asking again would not help."""
        import grpc

        if _status(error) in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise PermissionError(f"{self.uri} does not let this token {doing}: {_words(error)}") from error
        if not _passes(error):
            raise ValueError(f"{self.uri} refused to {doing}: {_words(error)}") from error

    def _given_up(self, doing: str, error: Any) -> OSError:
        import grpc

        kind = TimeoutError if _status(error) == grpc.StatusCode.DEADLINE_EXCEEDED else ConnectionError
        return kind(
            f"could not {doing}: {self.uri} was asked again and again for {self.timeout:g} s, and at last: "
            f"{_words(error)}. Is the server running, and is timeout= long enough for it?"
        )


def _import_pymilvus(lite: bool) -> None:
    import_extra("pymilvus", "milvus", "MilvusIndex")
    if lite:
        import_extra("milvus_lite", "milvus-lite", "Milvus in a file")
    # It logs a traceback of every failed attempt, also of those that are repeated; the last one is raised.
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
    logging.getLogger("pymilvus.client.connection_manager").setLevel(logging.CRITICAL)


def _passes(error: Any) -> bool:
    """Whether a failure is of those that pass by themselves."""
    import grpc

    status = _status(error)
    if status is not None:  # CANCELLED: another thread has replaced the broken connection
        return status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    worded = error.code in UNSPECIFIC_CODES and PASSING_WORDS.search(_words(error)) is not None
    return error.code in PASSING_CODES or worded


def _status(error: Any) -> Any:
    """The gRPC status of a failure, None where the server itself answered."""
    import grpc

    while error is not None and not isinstance(error, grpc.RpcError):
        if isinstance(getattr(error, "code", None), grpc.StatusCode):  # of an attempt that pymilvus gave up repeating
            return error.code
        error = None if error.__cause__ is error else error.__cause__  # pymilvus raises errors from themselves
    return None if error is None else error.code()


def _words(error: Any) -> str:
    """What an error says, in a line."""
    words = getattr(error, "message", None) or (error.details() if hasattr(error, "details") else str(error))
    return " ".join(str(words).split())[:500]
