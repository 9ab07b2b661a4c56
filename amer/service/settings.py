"""What a service allows: sizes, numbers and times."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _setting(default: int, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Settings:
    """Limits of a service, each a positive number, but `cache_size` may be 0; what they mean is also the help of
    `amer serve`.

    Raises:
        ValueError: a number that is not positive, or limits that contradict one another.
    """

    max_body_bytes: int = _setting(2**20, "Bytes of a request's body; more is answered with 413.")
    max_questions: int = _setting(64, "Questions of a request.")
    max_question_characters: int = _setting(4_096, "Characters of a question.")
    max_k: int = _setting(1_000, "Documents a question (k).")
    max_documents: int = _setting(20_000, "Documents of an answer: questions x k; more is answered with 422.")
    max_num_query_vectors: int = _setting(32, "Query vectors a question (m).")
    max_vectors: int = _setting(512, "Query vectors of an answer of /v1/embeddings: inputs x n_vectors.")
    max_filter_characters: int = _setting(2_000, "Characters of a filter.")
    max_batch_questions: int = _setting(64, "Questions of concurrent requests that are searched together.")
    max_waiting_questions: int = _setting(1_024, "Questions in the queue; with more, a request is answered with 503.")
    cache_size: int = _setting(1_024, "Answers that are kept for questions asked again in the same way; 0 keeps none.")
    max_connections: int = _setting(512, "Connections that are open at a time; one more is answered with 503.")
    idle_seconds: int = _setting(30, "Seconds that a client may take to send a request's headers, or none at all.")
    timeout_seconds: int = _setting(30, "Seconds a request may wait and be searched; after them the answer is 504.")
    stop_seconds: int = _setting(30, "Seconds that requests in flight are given to end when the service is stopped.")

    def __post_init__(self) -> None:
        from amer.corpus.filters import LONGEST  # here, since it loads torch and the command line must not

        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name == "cache_size":
                if value < 0:
                    raise ValueError(f"cache_size must be 0 or more, got {value}")
            elif not value > 0:
                raise ValueError(f"{setting.name} must be positive, got {value}")
        if self.max_filter_characters > LONGEST:
            raise ValueError(f"max_filter_characters is at most {LONGEST}, got {self.max_filter_characters}")
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
