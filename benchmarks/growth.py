"""Growth of time and memory with the corpus: encode, write, build, open, search and serve, each in a fresh process.

Vectors are synthetic; only "encode" embeds texts, for sizes up to `--encoded`. "search" and "serve" open the store and
answer twenty questions of five vectors, one after another. Sizes above `--indexed` have no index. The slope is that of
a line through the points in a log-log plot: 1 is linear. The script writes a plot beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from common import ROOT, Row, read_arguments, report

from amer.offline import MINILM, resolve_model

matplotlib.use("Agg")
from matplotlib import pyplot as plt

OPTIONS = {
    "rows": ([10_000, 100_000, 1_000_000], "documents"),
    "encoded": (10_000, "largest number of documents to embed with the encoder"),
    "indexed": (1_000_000, "largest number of documents to build an index of"),
    "encoder": (MINILM, "a document encoder"),
    "dim": (384, "dimension of the synthetic vectors"),
    "preset": ("ivfpq", "index: flat, ivfpq or hnsw"),
}
PARTS = ("encode", "write", "build", "open", "search", "search, exact", "serve")
WITH_INDEX = ("build", "search", "serve")


def measured(part: str, folder: Path, rows: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds, CPU seconds and peak memory of one part."""
    own = [part, folder, rows, arguments.dim, resolve_model(arguments.encoder), arguments.preset]
    script = Path(__file__).with_name("growth_parts.py")
    done = subprocess.run([sys.executable, str(script), *map(str, own)], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure every part at every size."""
    most = {"encode": arguments.encoded, **dict.fromkeys(WITH_INDEX, arguments.indexed)}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            for part in PARTS:
                if rows <= most.get(part, rows):
                    yield {"part": part, "documents": rows, **measured(part, Path(folder), rows, arguments)}


def slopes(rows: list[Row], figure: str) -> dict[str, float]:
    """The slope in a log-log plot of every part with several sizes."""
    found = {}
    for part in PARTS:
        points = [(row["documents"], row[figure]) for row in rows if row["part"] == part and row[figure] > 0]
        if len(points) > 1:
            sizes, figures = np.log(np.array(points, dtype=float)).T
            found[part] = float(np.polyfit(sizes, figures, 1)[0])
    return found


def draw(rows: list[Row], file: Path) -> None:
    """Plot CPU seconds and peak memory over the number of documents, with logarithmic axes."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axis, name in zip(axes, ("CPU seconds", "peak MB"), strict=True):
        for part in PARTS:
            own = [row for row in rows if row["part"] == part]
            axis.loglog([row["documents"] for row in own], [row[name] for row in own], marker="o", label=part)
        axis.set(xlabel="documents", ylabel=name)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    asked = read_arguments(__file__, __doc__, OPTIONS)
    found = list(measure(asked))
    report(asked, found, slopes={name: slopes(found, name) for name in ("CPU seconds", "peak MB")})
    draw(found, Path(asked.output).with_suffix(".png"))
