"""Serve a model and a document store over HTTP; where the environment holds AMER_API_KEY, clients need that key."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

import torch
from search import load_searcher
from transformers import HfArgumentParser

from amer.search.index.opening import COLLECTION
from amer.service import Settings, serve


@dataclass
class ServeArguments:
    """What is served, and where."""

    model: str = field(metadata={"help": "a trained AMER model: a folder or a name on the Hub"})
    store: str = field(metadata={"help": "the document store: a folder or a name on the Hub"})
    index: str | None = field(
        default=None, metadata={"help": "a FAISS index's folder, Milvus' address or file; exact search when not given"}
    )
    collection: str = field(default=COLLECTION, metadata={"help": "in Milvus, whose key is in MILVUS_TOKEN"})
    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: int = field(default=8000, metadata={"help": "port to listen on; 0 takes a free one"})
    trust_remote_code: bool = field(default=False, metadata={"help": "run the code that the encoder brings along"})
    device: str = field(
        default="cuda" if torch.cuda.is_available() else "cpu", metadata={"help": "where model and index run"}
    )


def main(argv: list[str] | None = None) -> None:
    """Load, search once so that the first client need not wait, and serve."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("amer").setLevel(logging.INFO)
    parser = HfArgumentParser((ServeArguments, Settings), description=__doc__)
    given, settings = parser.parse_args_into_dataclasses(args=argv)
    searcher = load_searcher(given, timeout=settings.timeout_seconds)
    searcher.search("warm up")
    serve(searcher, settings, given.host, given.port, os.environ.get("AMER_API_KEY"))


if __name__ == "__main__":
    main()
