"""Run by test_battery.py: `inserting.py killed|together STORE URI COLLECTION`.

Fills a collection after ten random kills, or by two processes at once. Each filling is a fork of this process, which
has imported everything and connected to nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pymilvus  # noqa: F401

from amer.retrieval.index.milvus_index import MilvusIndex
from amer.retrieval.store import DocumentStore


def start(store: str, uri: str, collection: str, batch_rows: int) -> int:
    """A process that fills a collection; its id."""
    child = os.fork()
    if child == 0:
        MilvusIndex.build(DocumentStore.open(store), uri, collection, batch_rows=batch_rows, show_progress_bar=False)
        os._exit(0)
    return child


def finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit(f"an insertion that nobody killed ended with {status}")


def killed(*where: str) -> None:
    for attempt in range(10):
        moment = random.uniform(0, 1.2)
        sys.stderr.write(f"killing attempt {attempt} after {moment} s\n")
        child = start(*where, batch_rows=5)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finish(start(*where, batch_rows=1_000))


def together(*where: str) -> None:
    children = [start(*where, batch_rows=200), start(*where, batch_rows=300)]
    for child in children:
        finish(child)


if __name__ == "__main__":
    {"killed": killed, "together": together}[sys.argv[1]](*sys.argv[2:])
