"""Encode a corpus into a document store; run it again after an interruption to resume."""

from __future__ import annotations

import argparse

import pyarrow.parquet as pq
from rich.console import Console

from amer.offline import resolve_model
from amer.retrieval import DocumentEncoder, encode_corpus


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--documents", required=True, help="Parquet file with the columns id, title, text")
    parser.add_argument("--encoder", required=True, help="sentence-transformers model: a name on the Hub or a folder")
    parser.add_argument("--output", required=True, help="directory of the document store")
    parser.add_argument("--revision", help="the encoder's commit on the Hub")
    parser.add_argument("--document_prompt", default="", help="put before every document")
    parser.add_argument("--query_prompt", default="", help="put before every question; recorded in the store")
    parser.add_argument("--batch_size", type=int, default=256, help="documents embedded at a time")
    parser.add_argument("--shard_size", type=int, default=8_192, help="documents per file")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the stored embeddings")
    parser.add_argument("--device", help="where the encoder runs; chosen by sentence-transformers when not given")
    return parser.parse_args()


def main() -> None:
    """Encode the corpus."""
    arguments = parse_arguments()
    encoder = DocumentEncoder(
        arguments.encoder,
        revision=arguments.revision,
        document_prompt=arguments.document_prompt,
        query_prompt=arguments.query_prompt,
        device=arguments.device,
        model_path=resolve_model(arguments.encoder),
    )
    store = encode_corpus(
        pq.read_table(arguments.documents),
        encoder,
        arguments.output,
        batch_size=arguments.batch_size,
        shard_size=arguments.shard_size,
        dtype=arguments.dtype,
    )
    summary = f"{store.path}: {len(store):,} documents, {store.dim} values each, {store.dtype}"
    Console().print(summary, markup=False)


if __name__ == "__main__":
    main()
