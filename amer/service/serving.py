"""Runs the application until it is told to stop."""

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
    """Serve until SIGTERM or SIGINT: then nothing new is taken, what is in flight is answered, and this returns.

    Call it in the main thread, as signals can only be handled there. Where a search goes on beyond
    `settings.stop_seconds`, the process ends here, with exit code 0.

    Args:
        searcher: what is served.
        settings: limits.
        host: address to listen on; 127.0.0.1 is reached from this machine only.
        port: 0 takes a free one.
        api_key: see `create_app`.
        examples: see `create_app`.
        ready: called with the address, such as http://127.0.0.1:8000, when clients may connect to it.

    Raises:
        OSError: the address cannot be listened on, or this process may open too few files.
        ValueError: an empty API key or host.
    """
    settings = settings or Settings()
    if not host.strip():
        raise ValueError("the host is empty: give 127.0.0.1, or 0.0.0.0 to listen on every interface")
    app = create_app(searcher, settings, api_key, examples)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port}: {error}; choose another with --host and --port"
        ) from error
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
    # When it has stopped, uvicorn raises the signal again for whoever handled it before: the default handler would end
    # the process with another exit code than 0. And a signal that arrives before uvicorn listens for it is not lost.
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
