"""The API key."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Security
from fastapi.security import APIKeyHeader

HEADER = "X-API-Key"


def key_check(api_key: str) -> Callable[..., Coroutine[Any, Any, None]]:
    """A FastAPI dependency that lets only requests with the key pass; it takes equally long for every wrong key.

    Raises:
        ValueError: the key is empty.
    """
    if not api_key:
        raise ValueError("the API key is empty: give one, or none at all to serve without")
    scheme = APIKeyHeader(name=HEADER, auto_error=False)

    async def check(key: str | None = Security(scheme)) -> None:
        # Headers arrive as Latin-1, whatever bytes were sent.
        if key is None or not hmac.compare_digest(key.encode("latin-1"), api_key.encode()):
            challenge = {"WWW-Authenticate": "APIKey"}
            raise HTTPException(401, f"the header {HEADER} is missing or wrong", challenge)

    return check
