"""A service whose searches wait for a file: `python -m tests.service.held STORE FILE STOP_SECONDS [OPEN_FILES]`."""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

from amer.corpus import DocumentStore
from amer.search import Hit
from amer.service import Settings, serve
from tests.service.conftest import FakeSearcher, until


class HeldSearcher(FakeSearcher):
    """Answers once the file is there; makes FILE.begun when it is first asked."""

    def search(self, questions: list[str], **options) -> list[list[Hit]]:
        Path(f"{release}.begun").touch()
        until(Path(release).exists, seconds=120)
        return super().search(questions, **options)


if __name__ == "__main__":
    store, release, stop_seconds, *open_files = sys.argv[1:]
    for number in map(int, open_files):
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    logging.basicConfig(level=logging.INFO)  # to say that it is ready
    serve(HeldSearcher(DocumentStore.open(store)), Settings(stop_seconds=int(stop_seconds)), port=0)
