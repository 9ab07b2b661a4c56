"""The peak memory of opening a document store, in a fresh process, without that of the imports.

Stores are synthetic, with empty texts and vectors of four values, since opening reads neither. Opening only holds the
metadata of `documents.parquet`, which grows with the numbers of row groups and columns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import ROOT, Row, run, store_without_texts

BLOCK = 2**16
OPEN = """
import json, pathlib, sys, time
from amer.corpus import DocumentStore

def resident(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before, start = resident("VmRSS"), time.perf_counter()
DocumentStore.open(sys.argv[1])
seconds = time.perf_counter() - start
sys.stdout.write(json.dumps({"seconds": seconds, "peak MB": max(0.0, resident("VmHWM") - before)}))
"""


OPTIONS = {
    "rows": ([100_000, 1_000_000, 10_000_000], "documents"),
    "fields": ([0, 20], "columns of metadata"),
}


def make_store(path: Path, rows: int, fields: int) -> None:
    """Make a store with `rows` documents and `fields` columns of metadata."""
    numbers = pa.array(np.arange(rows))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, BLOCK):
            yield np.tile(np.eye(4, dtype=np.float32)[0], (min(BLOCK, rows - start), 1))

    store_without_texts(path, rows, blocks(), **{f"field{number}": numbers for number in range(fields)})


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Make stores of every size with every number of fields, and open each in a fresh process."""
    for fields, rows in product(arguments.fields, arguments.rows):
        with tempfile.TemporaryDirectory() as folder:
            make_store(Path(folder) / "store", rows, fields)
            command = [sys.executable, "-c", OPEN, str(Path(folder) / "store")]
            opened = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        yield {"documents": rows, "fields": fields, **json.loads(opened.stdout)}


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
