"""Answers to questions that were asked before, in the same way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

LARGEST = 2**17  # bytes of an answer that is kept: 1,024 of them take 128 MiB at most


class AnswerCache:
    """The answers that were asked for last, of one model and one store, which do not change while they are served."""

    def __init__(self, size: int, observe: Callable[[], object]) -> None:
        """Keep `size` answers, none with 0; `observe` is called for each question that is answered from here."""
        self._size = size
        self._observe = observe
        self._answers: OrderedDict[tuple[str, Hashable], bytes] = OrderedDict()

    def get(self, question: str, options: Hashable) -> bytes | None:
        """The answer, if it is here."""
        answer = self._answers.get((question, options))
        if answer is not None:
            self._answers.move_to_end((question, options))
            self._observe()
        return answer

    def keep(self, question: str, options: Hashable, answer: Any) -> None:
        """Keep an answer, if it is JSON and not large, in the place of the one asked for least recently."""
        if not isinstance(answer, bytes) or len(answer) > LARGEST:
            return
        self._answers[question, options] = answer
        self._answers.move_to_end((question, options))
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
