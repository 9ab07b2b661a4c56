"""A Hugging Face Hub on loopback, for the real clients to talk to.

State lives in this process, contents in a folder; nothing survives the test. Storage answers under another host name
than the Hub, as the real one does: the client drops its token and the Hub's headers on the way there.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.hub.endpoints import respond
from tests.hub.messages import Request, Response, refusal
from tests.hub.repos import Blobs, HubError, Repo

CHUNK = 1 << 20

Action = Callable[[Request], object]


class Dropped(Exception):
    """Raised by a hook: the connection ends without an answer."""


@dataclass
class Hook:
    """What to do once, at the next request of this method whose path matches.

    Attributes:
        method: "POST", "PUT", ...
        pattern: searched in the unquoted path.
        action: called with the request; may sleep, raise `Dropped`, or return a `Response` to send instead.
        answered: wait until the request has been carried out, so that only the answer is still to come.
    """

    method: str
    pattern: re.Pattern[str]
    action: Action
    answered: bool = False


class Hub:
    """The Hub: what it keeps, and the server that gives access to it.

    Attributes:
        repos: by kind ("model", "dataset", "space") and name.
        blobs: the contents.
        lock: held by whoever changes a repository.
        requests: method and unquoted path of every request so far.
        hooks: faults to come.
    """

    def __init__(self, folder: Path) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs = Blobs(folder)
        self.lock = threading.RLock()
        self.requests: list[tuple[str, str]] = []
        self.hooks: list[Hook] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage_url(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Serve no more: the address is dead from now on. A second call does nothing."""
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: Request) -> Response:
        """Answer a request, with the hooks that wait for it before and after.

        Raises:
            Dropped: a hook wants no answer sent.
        """
        self.requests.append((request.method, unquote(request.path)))
        response = self._run_hook(request, answered=False)
        if response is None:
            try:
                response = respond(self, request)
            except HubError as error:
                response = refusal(error)
            response = self._run_hook(request, answered=True) or response
        return response

    def _run_hook(self, request: Request, answered: bool) -> Response | None:
        hook = self._take_hook(request, answered)
        result = hook.action(request) if hook else None
        return result if isinstance(result, Response) else None

    def _take_hook(self, request: Request, answered: bool) -> Hook | None:
        path = unquote(request.path)
        with self.lock:
            for hook in self.hooks:
                if hook.answered == answered and hook.method == request.method and hook.pattern.search(path):
                    self.hooks.remove(hook)
                    return hook
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets: the second must not wait for the first
    server: _Server

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, Dropped):
            self.close_connection = True

    def answer(self) -> None:
        parts = urlsplit(self.path)
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), self.headers, self._chunks())
        response = self.server.hub.handle(request)
        for _ in request.chunks:
            pass  # what no endpoint read must not be taken for the next request
        self._send(request, response)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _chunks(self) -> Iterator[bytes]:
        """The body as it comes in, of known length or (as the client streams uploads) in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield from self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._exactly(int(self.headers.get("Content-Length", 0)))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            chunk = self.rfile.read(min(size, CHUNK))
            if not chunk:
                raise ConnectionError("the client is gone")
            size -= len(chunk)
            yield chunk

    def _send(self, request: Request, response: Response) -> None:
        content = b"" if response.content is None else json.dumps(response.content).encode()
        length = len(content) if response.file is None else response.stop - response.start
        self.send_response(response.status)
        headers = {"Content-Type": "application/json", **response.headers, "Content-Length": str(length)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method == "HEAD":
            return
        self.wfile.write(content)
        if response.file is not None:
            self._send_file(response)

    def _send_file(self, response: Response) -> None:
        left = response.stop - response.start
        with response.file.open("rb") as file:
            file.seek(response.start)
            while left > 0:
                chunk = file.read(min(left, CHUNK))
                self.wfile.write(chunk)
                left -= len(chunk)

    def log_message(self, *args: object) -> None:
        """Silence: `Hub.requests` is the log."""
