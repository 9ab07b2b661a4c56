"""Search over HTTP: batches of concurrent requests, limits, metrics, graceful stop. Needs the extra `serve`."""

from __future__ import annotations

try:
    from amer.service.app import create_app
    from amer.service.serving import serve
except ModuleNotFoundError as error:
    if error.name not in ("fastapi", "prometheus_client", "pydantic", "uvicorn"):
        raise
    raise ImportError('the service needs FastAPI, uvicorn and prometheus-client: pip install "amer[serve]"') from error
from amer.service.settings import Settings

__all__ = ["Settings", "create_app", "serve"]
