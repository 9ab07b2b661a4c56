"""Batch concurrent requests: the requests that wait while one batch is searched form the next batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from amer.service.cache import AnswerCache

Found = list[Any]  # one answer per question
STOPPED = "the search has stopped"
GATHERING = 0.005  # seconds after a batch of several: answered clients ask again, and the first must not be alone
logger = logging.getLogger(__name__)


class Unavailable(Exception):
    """The queue is full, or the batcher has stopped."""


@dataclass(eq=False)
class _Request:
    questions: Sequence[str]
    options: Hashable
    found: asyncio.Future[Found]


class Batcher:
    """Answers requests batch by batch in one thread, which owns the model. Does not wait for a batch to fill up.

    The next batch holds the oldest request and the requests with the same options that fit.
    """

    def __init__(
        self,
        search: Callable[[list[str], Any], Found],
        max_batch: int,
        max_waiting: int,
        observe: Callable[[int], object],
        cache: AnswerCache,
    ) -> None:
        """Create a batcher. Use it inside `async with batcher.running():`.

        Args:
            search: Answers questions that have the same options. Called in the thread.
            max_batch: Most questions per batch.
            max_waiting: Most questions in the queue.
            observe: Called with the number of questions of every batch.
            cache: Answers repeated questions without a search.
        """
        self._search = search
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._cache = cache
        self._queue: list[_Request] = []
        self._arrived = asyncio.Event()
        self._searching: Future[Found] | None = None
        self._working: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise Unavailable if no request can be answered: outside `running`, or after an internal error."""
        if self._working is None or self._working.done():
            raise Unavailable(STOPPED)

    @property
    def waiting(self) -> int:
        """Number of questions in the queue, without those being searched."""
        return sum(len(request.questions) for request in self._queue)

    @property
    def searching(self) -> bool:
        """Whether the thread is searching. It may search even after all clients have disconnected."""
        return self._searching is not None and not self._searching.done()

    async def find(self, questions: Sequence[str], options: Hashable) -> Found:
        """Answer each question. If the call is cancelled, its request leaves the queue.

        Raises:
            Unavailable: The queue is full, or the batcher has stopped.
            OSError: The search raised it.
            RuntimeError: The search raised another error, which is the cause.
        """
        self.check()
        answers = [self._cache.get(question, options) for question in questions]
        missing = [question for question, answer in zip(questions, answers, strict=True) if answer is None]
        if missing:
            found = iter(await self._searched(missing, options))
            answers = [next(found) if answer is None else answer for answer in answers]
        return [answer for answer in answers if answer is not None]

    async def _searched(self, questions: Sequence[str], options: Hashable) -> Found:
        if self.waiting + len(questions) > self._max_waiting:
            raise Unavailable(f"{self.waiting} questions are waiting, at most {self._max_waiting} may")
        request = _Request(questions, options, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._arrived.set()
        try:
            found = await request.found
            for question, answer in zip(questions, found, strict=True):
                self._cache.keep(question, options, answer)
            return found
        finally:
            if request in self._queue:
                self._queue.remove(request)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests inside the context. On exit, a running search is not awaited."""
        thread = ThreadPoolExecutor(1, "amer-service")
        self._working = asyncio.create_task(self._work(thread))
        try:
            yield
        finally:
            self._working.cancel()
            thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        batch: list[_Request] = []
        try:
            while True:
                await self._arrived.wait()
                while self._queue:
                    batch = self._next_batch()
                    await self._answer(batch, thread)
                    if len(batch) > 1:
                        await asyncio.sleep(GATHERING)
                self._arrived.clear()
        except Exception:
            logger.exception("%s: start the service again", STOPPED)
        finally:
            _fail([*batch, *self._queue], Unavailable(STOPPED))

    def _next_batch(self) -> list[_Request]:
        """Take the oldest request and all requests that can be searched with it out of the queue."""
        oldest, *others = self._queue
        batch, size = [oldest], len(oldest.questions)
        for request in others:
            if request.options == oldest.options and size + len(request.questions) <= self._max_batch:
                batch.append(request)
                size += len(request.questions)
        self._queue = [request for request in others if request not in batch]
        return batch

    async def _answer(self, batch: list[_Request], thread: ThreadPoolExecutor) -> None:
        """Search a batch. If it fails, search each request alone, so that only the bad request gets the error."""
        batch = [request for request in batch if not request.found.done()]
        if not batch:
            return
        questions = [question for request in batch for question in request.questions]
        self._observe(len(questions))
        self._searching = thread.submit(self._found, questions, batch[0].options)
        try:
            answers = await asyncio.wrap_future(self._searching)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, OSError):  # an unreachable index affects all requests
                _fail(batch, error)
            else:
                for request in batch:
                    await self._answer([request], thread)
            return
        found = iter(answers)
        for request in batch:
            own = list(islice(found, len(request.questions)))
            if not request.found.done():
                request.found.set_result(own)

    def _found(self, questions: list[str], options: Any) -> Found:
        try:
            return self._search(questions, options)
        except OSError:
            raise
        except BaseException as error:  # a future treats StopIteration and CancelledError specially
            raise RuntimeError("the search failed") from error


def _fail(batch: list[_Request], error: Exception) -> None:
    for request in batch:
        if not request.found.done():
            request.found.set_exception(error)
