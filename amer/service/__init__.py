"""Search over HTTP: batches of concurrent requests, limits, metrics, graceful stop. Needs the extra `serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amer.service.settings import Settings

if TYPE_CHECKING:
    from amer.service.app import create_app
    from amer.service.serving import serve

__all__ = ["Settings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    """Import `create_app` and `serve` on first use, so that `Settings` needs neither torch nor FastAPI."""
    if name not in ("create_app", "serve"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from amer.service.app import create_app
        from amer.service.serving import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "pydantic", "uvicorn"):
            raise
        raise ImportError(
            'the service needs FastAPI, uvicorn and prometheus-client: pip install "amer[serve]"'
        ) from error
    return create_app if name == "create_app" else serve
