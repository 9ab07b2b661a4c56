"""A cache of answers to repeated questions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

LARGEST = 2**17  # bytes of the largest answer to keep: 1,024 answers take at most 128 MiB


class AnswerCache:
    """The most recently used answers. They stay valid because a service never changes its model or store."""

    def __init__(self, size: int, observe: Callable[[], object]) -> None:
        """Create a cache for `size` answers; 0 keeps none. `observe` is called for each answer from the cache."""
        self._size = size
        self._observe = observe
        self._answers: OrderedDict[tuple[str, Hashable], bytes] = OrderedDict()

    def get(self, question: str, options: Hashable) -> bytes | None:
        """Return the cached answer, or None."""
        answer = self._answers.get((question, options))
        if answer is not None:
            self._answers.move_to_end((question, options))
            self._observe()
        return answer

    def keep(self, question: str, options: Hashable, answer: Any) -> None:
        """Keep an answer if it is JSON and not too large. Drops the least recently used answers if full."""
        if not isinstance(answer, bytes) or len(answer) > LARGEST:
            return
        self._answers[question, options] = answer
        self._answers.move_to_end((question, options))
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
