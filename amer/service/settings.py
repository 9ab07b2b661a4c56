"""Limits of a service: sizes, counts and times."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _setting(default: int, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Settings:
    """Limits of a service: positive integers, and `cache_size` may be 0. The texts are also the help of `amer serve`.

    Raises:
        ValueError: A number is not positive, or two limits contradict each other.
    """

    max_body_bytes: int = _setting(2**20, "Most bytes in the body of a request; above it, the answer is 413.")
    max_questions: int = _setting(64, "Most questions per request.")
    max_question_characters: int = _setting(4_096, "Most characters per question.")
    max_k: int = _setting(1_000, "Most documents per question (k).")
    max_documents: int = _setting(20_000, "Most documents per answer, questions x k; above it, the answer is 422.")
    max_num_query_vectors: int = _setting(32, "Most query vectors per question (m).")
    max_vectors: int = _setting(512, "Most query vectors per answer of /v1/embeddings, inputs x n_vectors.")
    max_filter_characters: int = _setting(2_000, "Most characters in a filter.")
    max_batch_questions: int = _setting(64, "Most questions of concurrent requests to search in one batch.")
    max_waiting_questions: int = _setting(1_024, "Most questions in the queue; above it, the answer is 503.")
    cache_size: int = _setting(1_024, "Number of answers to keep for repeated questions; 0 keeps none.")
    max_connections: int = _setting(512, "Most open connections; above it, the answer is 503.")
    idle_seconds: int = _setting(30, "Seconds that a connection may be idle, or take to send a request's headers.")
    timeout_seconds: int = _setting(30, "Seconds to wait in the queue and search; after that, the answer is 504.")
    stop_seconds: int = _setting(30, "Seconds that running requests get to finish when the service stops.")

    def __post_init__(self) -> None:
        from amer.corpus.filters import LONGEST  # not at the top: it loads torch, which the command line must not

        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name == "cache_size":
                if value < 0:
                    raise ValueError(f"cache_size must be 0 or more, got {value}")
            elif not value > 0:
                raise ValueError(f"{setting.name} must be positive, got {value}")
        if self.max_filter_characters > LONGEST:
            raise ValueError(f"max_filter_characters must be at most {LONGEST}, got {self.max_filter_characters}")
        for name in ("max_batch_questions", "max_waiting_questions", "max_documents", "max_vectors"):
            if getattr(self, name) < self.max_questions:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but a request may have {self.max_questions} questions: "
                    "raise it or lower max_questions"
                )
        if self.max_documents < self.max_k:
            raise ValueError(
                f"max_documents is {self.max_documents}, but k may be {self.max_k}: raise it or lower max_k"
            )
