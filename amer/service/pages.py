"""The page: a few static files, read once. What it shows it asks of `/explore`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Response

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Scripts, styles and answers from this service alone, none of them in the HTML. Spaces show their page in a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self' https://huggingface.co"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # another version of the service has another page
}


def page_router() -> APIRouter:
    """`/` and the files it needs; none of them needs a key, for they hold nothing of model or documents."""
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
