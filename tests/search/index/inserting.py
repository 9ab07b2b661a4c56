"""Run by test_battery.py: `inserting.py killed|together STORE URI COLLECTION`.

Fills a collection after ten kills amid its insertion, or by two processes at once. Each filling is a fork of this
process, which has imported everything and connected to nothing. After kills, the last line of the output is a list of
`[written, found]`: rows whose writing had been confirmed before a kill, and rows the next filling found.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from typing import Any, TextIO

import pymilvus  # noqa: F401

from amer.corpus.store import DocumentStore
from amer.search.index.milvus import index as milvus_index
from amer.search.index.milvus.collection import MilvusCollection
from amer.search.index.milvus.index import MilvusIndex

KILLED_BATCH = 50  # rows


def start(store: str, uri: str, collection: str, batch_rows: int) -> tuple[int, TextIO]:
    """A process that fills a collection: its id, and lines in which it tells how far it is, see `tell`."""
    reader, progress = os.pipe()
    child = os.fork()
    if child == 0:
        tell(progress)
        documents = DocumentStore.open(store)
        MilvusIndex.build(documents, uri, collection, "FLAT", batch_rows=batch_rows, show_progress_bar=False)
        os._exit(0)
    os.close(progress)
    return child, os.fdopen(reader)


def tell(progress: int) -> None:
    """Let this process write how many rows it has found, and then a line for every batch it has written."""
    fill, write = milvus_index.fill, MilvusCollection.write

    def told_fill(collection: MilvusCollection, store: DocumentStore, *rest: Any) -> None:
        os.write(progress, b"%d\n" % collection.count(0, len(store)))
        fill(collection, store, *rest)

    def told_write(collection: MilvusCollection, entities: list[dict[str, Any]]) -> None:
        write(collection, entities)
        os.write(progress, b"written\n")

    milvus_index.fill, MilvusCollection.write = told_fill, told_write


def finish(child: int, lines: TextIO) -> str:
    """Wait for a process; the first line it has told."""
    first = lines.read().partition("\n")[0]
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit(f"an insertion that nobody killed ended with {status}")
    return first


def killed(*where: str) -> None:
    generator = random.Random(0)
    found, written = [], []
    for _ in range(10):
        batches = generator.randint(1, 4)
        child, lines = start(*where, batch_rows=KILLED_BATCH)
        with lines:
            found.append(int(lines.readline()))
            for _ in range(batches):
                lines.readline()
            time.sleep(generator.uniform(0, 0.01))  # into the next batch
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        written.append(found[-1] + KILLED_BATCH * batches)
    found.append(int(finish(*start(*where, batch_rows=1_000))))
    sys.stdout.write(json.dumps(list(zip(written, found[1:], strict=True))) + "\n")


def together(*where: str) -> None:
    filling = [start(*where, batch_rows=200), start(*where, batch_rows=300)]
    for process in filling:
        finish(*process)


if __name__ == "__main__":
    {"killed": killed, "together": together}[sys.argv[1]](*sys.argv[2:])
