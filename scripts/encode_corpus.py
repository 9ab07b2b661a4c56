"""Encode a corpus into a document store; run it again after an interruption to resume.

One process: `python scripts/encode_corpus.py ...`; several GPUs: `accelerate launch --num_processes 8 ...`; several
processes on CPUs: `torchrun --nproc_per_node 4 ...`.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from workers import this_worker

from amer.data import open_documents
from amer.offline import resolve_model
from amer.retrieval import DocumentEncoder, encode_corpus


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
    parser.add_argument("--query_prompt", default="", help="put before every question; recorded in the store")
    parser.add_argument("--batch_size", type=int, default=256, help="documents embedded at a time")
    parser.add_argument("--shard_size", type=int, default=8_192, help="documents per file")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the stored embeddings")
    parser.add_argument("--device", help="where the encoder runs; each process on a GPU of its own when not given")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Encode this process's part of the corpus; the last to be done finishes the store."""
    given = parse_arguments(arguments)
    with this_worker(given.device) as worker:
        encoder = DocumentEncoder(
            given.encoder,
            revision=given.revision,
            document_prompt=given.document_prompt,
            query_prompt=given.query_prompt,
            device=worker.device,
            model_path=resolve_model(given.encoder),
        )
        store = encode_corpus(
            open_documents(given.documents),
            encoder,
            given.output,
            batch_size=given.batch_size,
            shard_size=given.shard_size,
            dtype=given.dtype,
            show_progress_bar=worker.is_first_here,
            worker=worker.index,
            num_workers=worker.count,
        )
    if store is not None:
        summary = f"{store.path}: {len(store):,} documents, {store.dim} values each, {store.dtype}"
        Console().print(summary, markup=False)


if __name__ == "__main__":
    main()
