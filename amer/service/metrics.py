"""Metrics of the service for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUESTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one application, in their own registry.

    Attributes:
        registry: Registry that `/metrics` shows.
        batches: Number of questions per batch.
        repeated: Number of questions answered from the cache.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        """Create the metrics. `waiting` returns the number of questions in the queue."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "amer_requests",
            "Requests answered, 499 where the client had gone.",
            ["path", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "amer_request_seconds", "From request to answer.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "amer_batch_questions", "Questions searched together.", buckets=QUESTIONS, registry=self.registry
        )
        self.repeated = Counter(
            "amer_repeated_questions", "Questions answered from the cache.", registry=self.registry
        )
        queue = Gauge("amer_waiting_questions", "Questions in the queue.", registry=self.registry)
        queue.set_function(waiting)


class MeasuredRequests:
    """ASGI middleware that counts and times requests. All unknown paths count as "other"."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.latency.labels(path).observe(time.perf_counter() - start)
