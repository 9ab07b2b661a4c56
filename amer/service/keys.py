"""The API key."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

HEADER = "X-API-Key"


def key_check(api_key: str) -> Callable[..., Coroutine[Any, Any, None]]:
    """Make a FastAPI dependency that requires the API key. It compares keys in constant time.

    Clients of OpenAI's API send the key as `Authorization: Bearer`.

    Raises:
        ValueError: The key is empty.
    """
    if not api_key:
        raise ValueError("the API key is empty: give a key, or None to serve without one")
    header = Security(APIKeyHeader(name=HEADER, auto_error=False))
    bearer = Security(HTTPBearer(auto_error=False))

    async def check(key: str | None = header, credentials: HTTPAuthorizationCredentials | None = bearer) -> None:
        given = [key, None if credentials is None else credentials.credentials]
        if not any(_equal(one, api_key) for one in given if one is not None):
            challenge = {"WWW-Authenticate": "APIKey, Bearer"}
            raise HTTPException(401, f"the header {HEADER} is missing or wrong", challenge)

    return check


def _equal(given: str, api_key: str) -> bool:
    return hmac.compare_digest(given.encode("latin-1"), api_key.encode())  # headers arrive as Latin-1
