"""A connection to Milvus that retries while the server is unavailable, and reports which request failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from amer.extras import import_extra
from amer.search.index.milvus.errors import passes, short_message, status_of

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Answer = TypeVar("Answer")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds between attempts
CONNECT_SECONDS = 10.0  # most that one attempt to connect may take


class MilvusConnection:
    """A Milvus client that retries calls with increasing pauses until they succeed or time out.

    Thread-safe. If the answer to a call is lost, the call runs twice. So make only idempotent calls here.

    Attributes:
        uri: A file that ends in ".db" (Milvus Lite, in this process) or the address of a server or cluster.
        timeout: Seconds that a call may take, including retries.
        lite: Whether this is Milvus Lite.
    """

    def __init__(self, uri: str, token: str = "", timeout: float = 60.0) -> None:
        """Connect.

        Args:
            uri: See above.
            token: "user:password" or an API key, if the server requires one.
            timeout: See above.

        Raises:
            ImportError: pymilvus or, for a file, milvus-lite is not installed.
            OSError: The server does not answer, or another process has the file open.
            ValueError: `uri` is neither a `.db` file nor an address, or `timeout` is not positive.
        """
        self.lite = "://" not in uri
        if self.lite and not uri.endswith(".db"):
            raise ValueError(
                f"give a Milvus file that ends in .db or an address such as http://host:19530, got {uri!r}"
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
        """Make a request and retry until it succeeds.

        Args:
            doing: What the request does, for messages: "connect".
            request: Called with the client and the seconds left.

        Raises:
            ConnectionError: The server could not be reached, or was not ready, within the timeout.
            TimeoutError: The server did not answer within the timeout.
            PermissionError: The server does not accept the token.
            ValueError: The server rejects the request.
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
        """Close the connection. The next call opens it again."""
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
                    # A dedicated connection: otherwise pymilvus shares one, even a broken one, per address.
                    self._client = MilvusClient(self.uri, token=self._token, timeout=limit, dedicated=True)
                except ConnectionConfigException as error:
                    if not self.lite:
                        raise ValueError(f"{self.uri!r} is not an address of Milvus: {error.message}") from error
                    raise OSError(
                        f"{self.uri} cannot be opened ({error.message}): another process has it open, or it is damaged"
                    ) from error
            return self._client

    def _refuse(self, doing: str, error: Any) -> None:
        """Raise if a retry would not help."""
        import grpc

        if status_of(error) in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise PermissionError(f"{self.uri} does not let this token {doing}: {short_message(error)}") from error
        if not passes(error):
            raise ValueError(f"{self.uri} refused to {doing}: {short_message(error)}") from error

    def _given_up(self, doing: str, error: Any) -> OSError:
        import grpc

        kind = TimeoutError if status_of(error) == grpc.StatusCode.DEADLINE_EXCEEDED else ConnectionError
        return kind(
            f"could not {doing}: retried {self.uri} for {self.timeout:g} s, last error: "
            f"{short_message(error)}. Check that the server is running, or give a longer timeout="
        )


def _import_pymilvus(lite: bool) -> None:
    import_extra("pymilvus", "milvus", "MilvusIndex")
    if lite:
        import_extra("milvus_lite", "milvus-lite", "Milvus in a file")
    # pymilvus logs a traceback of every failed attempt, even before a retry. The last error is raised anyway.
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
    logging.getLogger("pymilvus.client.connection_manager").setLevel(logging.CRITICAL)
