"""Run the application until a signal stops it."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence

import uvicorn

from amer.search import Searcher
from amer.service.app import create_app
from amer.service.connections import ClosesWhenStopping, OnceAWhile, guarded, limits_of
from amer.service.settings import Settings

logger = logging.getLogger(__name__)


def serve(
    searcher: Searcher,
    settings: Settings | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    examples: Sequence[str] = (),
    ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve until SIGTERM or SIGINT. Then refuse new requests, answer the running ones, and return.

    Call it in the main thread, because only that thread can handle signals. If a search takes longer than
    `settings.stop_seconds` after the signal, the process exits here with code 0.

    Args:
        searcher: The searcher to serve.
        settings: Limits of the service.
        host: Address to listen on. 127.0.0.1 is reachable from this machine only.
        port: Port to listen on. 0 chooses a free port.
        api_key: See `create_app`.
        examples: See `create_app`.
        ready: Called with the address, such as http://127.0.0.1:8000, when clients can connect.

    Raises:
        OSError: The address is not available, or this process may open too few files.
        ValueError: The API key or the host is empty.
    """
    settings = settings or Settings()
    if not host.strip():
        raise ValueError("the host is empty: give 127.0.0.1, or 0.0.0.0 to listen on every interface")
    app = create_app(searcher, settings, api_key, examples)
    listening = _listen(host, port)
    limits = limits_of(settings.max_connections, settings.idle_seconds, settings.timeout_seconds)

    def stopping() -> bool:
        return server.should_exit

    config = uvicorn.Config(
        ClosesWhenStopping(app, stopping),
        http=guarded(limits),
        ws="none",
        backlog=limits.backlog,
        timeout_keep_alive=settings.idle_seconds,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.stop_seconds,
    )
    server: uvicorn.Server = uvicorn.Server(config)
    quiet = OnceAWhile()
    for name in ("asyncio", "uvicorn.error"):
        logging.getLogger(name).addFilter(quiet)
    # After it has stopped, uvicorn raises the signal again for the previous handler. The default handler would end the
    # process with a nonzero exit code. These handlers also catch a signal that arrives before uvicorn has its own.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        name, number = listening.getsockname()[:2]
        address = f"http://{f'[{name}]' if ':' in name else name}:{number}"
        logger.info("ready: %s", address)
        ready(address)
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if app.state.batcher.searching:
        logger.warning("stopped while a search was running")
        logging.shutdown()
        os._exit(0)  # Python would wait for the search's thread


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Connections inherit TCP_NODELAY, which asyncio sets only for sockets it opened itself.

    Without it, the body of an answer waits some 40 ms for the client to acknowledge the headers.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port}: {error}; choose another with --host and --port"
        ) from error
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
