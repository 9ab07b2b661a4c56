"""The web page: static files, read once. The page gets its data from `/explore`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Response

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Allow scripts, styles and requests of this service only, nothing inline. Hub Spaces show the page in a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self' https://huggingface.co"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a new version of the service may have a new page
}


def page_router() -> APIRouter:
    """Make the routes of `/` and its files. They need no key, since they hold no data of model or documents."""
    router = APIRouter(include_in_schema=False)
    for file in files(__package__).joinpath("page").iterdir():
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        content, kind = file.read_bytes(), KINDS[file.name.rpartition(".")[2]]
        router.add_api_route(path, _sends(content, kind), methods=["GET", "HEAD"])
    return router


def _sends(content: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def send() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return send
