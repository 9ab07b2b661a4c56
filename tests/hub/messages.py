"""What goes over the wire: a request as the endpoints see it, and their answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.hub.repos import HubError


@dataclass
class Request:
    """One request.

    Attributes:
        method: GET, HEAD, POST, PUT or DELETE.
        path: the path as it was sent, still quoted, without the query.
        query: last value of each parameter.
        headers: by name, in any case.
        chunks: the body, read from the socket as it is asked for.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @cached_property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def token(self) -> str | None:
        """The access token, or None for a request without one."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def json_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    def values(self, name: str) -> list[str]:
        """A list sent as a form or as JSON: versions of the client differ."""
        if "json" in self.headers.get("Content-Type", ""):
            return self.json().get(name, [])
        return parse_qs(self.body.decode()).get(name, [])


@dataclass
class Response:
    """An answer: JSON-able `content`, or the bytes of a file from `start` to `stop`."""

    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    start: int = 0
    stop: int = 0


def refusal(error: HubError) -> Response:
    """The answer that tells the client of an error, in its body and in the headers the client reads."""
    headers = {"X-Error-Message": error.message.encode("ascii", "replace").decode(), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return Response(error.status, {"error": error.message}, headers)


def file_response(request: Request, path: Path, headers: Mapping[str, str]) -> Response:
    """A file, or the range of it that was asked for.

    Raises:
        HubError: the range begins after the end.
    """
    size = path.stat().st_size
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    asked = request.headers.get("Range", "")
    if not asked.startswith("bytes="):
        return Response(200, headers=headers, file=path, start=0, stop=size)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(206, headers=headers, file=path, start=start, stop=stop)
