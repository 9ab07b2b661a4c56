"""Searches concurrent requests together: what waits while one batch is searched becomes the next batch."""

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

Found = list[Any]  # one answer a question
STOPPED = "nothing is searched any more"
logger = logging.getLogger(__name__)


class Unavailable(Exception):
    """More questions wait than may, or nothing is searched any more."""


@dataclass(eq=False)
class _Request:
    questions: Sequence[str]
    options: Hashable
    found: asyncio.Future[Found]


class Batcher:
    """Answers requests in one thread, which owns the model, a batch at a time; nobody waits for a batch to fill.

    The oldest request is always in the next batch, with those of equal options that fit behind it.
    """

    def __init__(
        self,
        search: Callable[[list[str], Any], Found],
        max_batch: int,
        max_waiting: int,
        observe: Callable[[int], object],
        cache: AnswerCache,
    ) -> None:
        """Search with `async with batcher.running():` around it.

        Args:
            search: finds the answers of some questions of equal options, in the thread.
            max_batch: questions of a batch.
            max_waiting: questions that may wait.
            observe: called with the number of questions of every batch.
            cache: answers what was asked before, without a search.
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
        """Raise Unavailable where no request would be answered: outside of `running`, or after an error of its own."""
        if self._working is None or self._working.done():
            raise Unavailable(STOPPED)

    @property
    def waiting(self) -> int:
        """Questions in the queue, without those being searched."""
        return sum(len(request.questions) for request in self._queue)

    @property
    def searching(self) -> bool:
        """Whether the thread is at work; it may still be when nobody wants the answer any more."""
        return self._searching is not None and not self._searching.done()

    async def find(self, questions: Sequence[str], options: Hashable) -> Found:
        """The answer of each question; cancelled, the request leaves the queue.

        Raises:
            Unavailable: as it says.
            OSError: what the search of these questions raises.
            RuntimeError: the search raises anything else, which is its cause.
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
        """Search what arrives; at the end, a search that has begun is left to itself."""
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
                self._arrived.clear()
        except Exception:
            logger.exception("%s: start the service again", STOPPED)
        finally:
            _fail([*batch, *self._queue], Unavailable(STOPPED))

    def _next_batch(self) -> list[_Request]:
        """Take the oldest request out of the queue, and all that can be searched with it."""
        oldest, *others = self._queue
        batch, size = [oldest], len(oldest.questions)
        for request in others:
            if request.options == oldest.options and size + len(request.questions) <= self._max_batch:
                batch.append(request)
                size += len(request.questions)
        self._queue = [request for request in others if request not in batch]
        return batch

    async def _answer(self, batch: list[_Request], thread: ThreadPoolExecutor) -> None:
        """Search a batch; where that fails each request is searched alone, so that only the bad one sees the error."""
        batch = [request for request in batch if not request.found.done()]
        if not batch:
            return
        questions = [question for request in batch for question in request.questions]
        self._observe(len(questions))
        self._searching = thread.submit(self._found, questions, batch[0].options)
        try:
            answers = await asyncio.wrap_future(self._searching)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, OSError):  # an index that is away is so for all
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
        except BaseException as error:  # StopIteration and CancelledError, say, mean something else to a future
            raise RuntimeError("the search failed") from error


def _fail(batch: list[_Request], error: Exception) -> None:
    for request in batch:
        if not request.found.done():
            request.found.set_exception(error)
