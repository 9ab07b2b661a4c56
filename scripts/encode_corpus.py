"""Encode a corpus into a document store; run it again after an interruption to resume.

One process: `python scripts/encode_corpus.py ...`; several GPUs: `accelerate launch --num_processes 8 ...`; several
processes on CPUs: `torchrun --nproc_per_node 4 ...`; a Ray cluster: `--ray ADDRESS`. What one of them began any other
finishes. Processes on several machines need a shared file system.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console

from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus, open_documents
from amer.corpus.known_encoders import KNOWN_ENCODERS
from amer.corpus.ray_encoding import encode_corpus_with_ray
from amer.corpus.store import embedding_shards
from amer.corpus.workers import this_worker
from amer.files import read_json
from amer.locks import RUN_FILE


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--documents", required=True, help="corpus: a .parquet file or a folder of Arrow parts")
    parser.add_argument("--encoder", required=True, help="sentence-transformers model: a name on the Hub or a folder")
    parser.add_argument("--output", required=True, help="directory of the document store")
    parser.add_argument("--revision", help="the encoder's commit on the Hub")
    parser.add_argument("--document_prompt", default="", help="put before every document")
    parser.add_argument(
        "--query_prompt", help="put before every question, recorded in the store; None: what a known encoder wants"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the encoder brings along")
    parser.add_argument("--batch_size", type=int, default=256, help="documents embedded at a time")
    parser.add_argument("--shard_size", type=int, default=8_192, help="documents per file")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the stored embeddings")
    parser.add_argument("--device", help="where the encoder runs; each process on a GPU of its own when not given")
    parser.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="use the Ray cluster there; Ray on this machine if empty"
    )
    parser.add_argument(
        "--ray_actors", type=int, help="encoders of the Ray cluster; None: one a GPU, or one a CPU core"
    )
    given = parser.parse_args(arguments)
    if given.ray_actors is not None and given.ray is None:
        parser.error("--ray_actors needs --ray")
    return given


def identity_of(given: argparse.Namespace, console: Console) -> dict[str, str | None]:
    """Name, revision and prompts of the encoder; says what was not given on the command line."""
    query_prompt = given.query_prompt
    if query_prompt is None:
        query_prompt = KNOWN_ENCODERS[given.encoder].query_prompt if given.encoder in KNOWN_ENCODERS else ""
        console.print(f"before every question: {query_prompt!r} (choose with --query_prompt)", markup=False)
    return {
        "name": given.encoder,
        "revision": given.revision,
        "document_prompt": given.document_prompt,
        "query_prompt": query_prompt,
    }


def what_is_missing(path: Path) -> str:
    """Why a store is not finished yet."""
    try:
        shards = embedding_shards(path, read_json(path / RUN_FILE))
    except FileNotFoundError:
        return f"{path}: another process has just finished it"
    there = len(shards) - len(shards.missing())
    return (
        f"{path}: {there} of {len(shards)} shards are there; another process is at work on the rest, or it is other "
        "workers'. Who finds all of them finishes the store; if nobody is at work, run this again"
    )


def encode_here(given: argparse.Namespace, console: Console) -> DocumentStore | None:
    """Encode this process's part of the corpus; the last to be done finishes the store."""
    with this_worker(given.device) as worker:
        identity = identity_of(given, console if worker.index == 0 else Console(quiet=True))
        return encode_corpus(
            open_documents(given.documents),
            DocumentEncoder.from_identity(identity, worker.device, given.trust_remote_code),
            given.output,
            batch_size=given.batch_size,
            shard_size=given.shard_size,
            dtype=given.dtype,
            show_progress_bar=worker.is_first_here,
            worker=worker.index,
            num_workers=worker.count,
        )


def encode_with_ray(given: argparse.Namespace, console: Console) -> DocumentStore:
    """Have a Ray cluster encode the corpus."""
    identity = identity_of(given, console)
    make = partial(DocumentEncoder.from_identity, identity, given.device, given.trust_remote_code)
    return encode_corpus_with_ray(
        given.documents,
        make,
        given.output,
        batch_size=given.batch_size,
        shard_size=given.shard_size,
        dtype=given.dtype,
        address=given.ray or None,
        num_actors=given.ray_actors,
    )


def main(arguments: list[str] | None = None) -> None:
    """Encode, and say what has become of the store."""
    given, console = parse_arguments(arguments), Console()
    store = encode_here(given, console) if given.ray is None else encode_with_ray(given, console)
    if store is None:
        console.print(what_is_missing(Path(given.output)), markup=False)
    else:
        summary = f"{store.path}: {len(store):,} documents, {store.dim} values each, {store.dtype}"
        console.print(summary, markup=False)


if __name__ == "__main__":
    main()
