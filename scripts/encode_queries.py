"""Encode many questions with a trained model; run it again after an interruption to resume.

One process: `python scripts/encode_queries.py ...`; several GPUs: `accelerate launch --num_processes 8 ...`; several
processes on CPUs: `torchrun --nproc_per_node 4 ...`. `amer.search.load_query_embeddings` reads the output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console

from amer.corpus import DocumentEncoder
from amer.corpus.store import complete_encoder
from amer.corpus.workers import this_worker
from amer.data import load_dataset_dir
from amer.hub import pull_folder
from amer.search import encode_queries
from modeling_amer import AMERConfig, AMERModel


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a trained AMER model: a folder or a name on the Hub")
    parser.add_argument("--output", required=True, help="directory of the query embeddings")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--questions", help=".txt with a question a line, or .jsonl of objects with the field `query`")
    source.add_argument("--dataset", help="a dataset: a folder or a name on the Hub")
    parser.add_argument("--split", default="test", help="split of the dataset (default: test)")
    parser.add_argument("--num_query_vectors", type=int, help="per question (default: the model's own)")
    parser.add_argument("--batch_size", type=int, default=64, help="questions decoded at a time (default: 64)")
    parser.add_argument("--shard_size", type=int, default=1_024, help="questions per file (default: 1024)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the decoder (default: as it was trained)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that the encoder brings along")
    parser.add_argument("--device", help="where it runs (default: each process on a GPU of its own)")
    return parser.parse_args(arguments)


def read_questions(file: Path) -> list[str]:
    """The questions of a text or JSON Lines file, in its order."""
    with open(file, encoding="utf-8-sig") as stream:
        lines = [line.rstrip("\n") for line in stream]
    return lines if file.suffix != ".jsonl" else [_query(line, f"{file}:{i}") for i, line in enumerate(lines, start=1)]


def _query(line: str, where: str) -> str:
    try:
        return json.loads(line)["query"]
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{where}: not a JSON object with the field `query` ({error})") from error


def read_split(path: Path, name: str, config: AMERConfig) -> tuple[list[str] | None, np.ndarray | None]:
    """The questions of a dataset's split as the model reads them: as text, as vectors, or both."""
    splits = load_dataset_dir(path)
    if name not in splits:
        raise SystemExit(f"{path} has no split {name!r}: choose from {', '.join(splits)}")
    split = splits[name]
    if config.reads_text and split.queries is None:
        raise SystemExit(f"the questions of {path} are vectors, but this model reads text")
    return split.queries if config.reads_text else None, split.input_vectors if config.reads_vectors else None


def load_encoder(config: AMERConfig, device: str, trust_remote_code: bool) -> DocumentEncoder:
    """The document encoder an anchored model was trained with."""
    return DocumentEncoder.from_identity(complete_encoder(config.document_encoder or {}), device, trust_remote_code)


def main(arguments: list[str] | None = None) -> None:
    """Encode this process's part of the questions; the last to be done finishes the directory."""
    given = parse_arguments(arguments)
    options = {} if given.dtype is None else {"dtype": given.dtype}
    with this_worker(given.device) as worker:
        model = AMERModel.from_pretrained(given.model, **options).to(worker.device)
        if given.questions is None:
            questions, vectors = read_split(pull_folder(given.dataset), given.split, model.config)
        else:
            questions, vectors = read_questions(Path(given.questions)), None
        embeds_questions = model.config.anchored and vectors is None
        finished = encode_queries(
            model,
            given.output,
            questions,
            vectors,
            num_query_vectors=given.num_query_vectors,
            batch_size=given.batch_size,
            shard_size=given.shard_size,
            worker=worker.index,
            num_workers=worker.count,
            show_progress_bar=worker.is_first_here,
            encoder=load_encoder(model.config, worker.device, given.trust_remote_code) if embeds_questions else None,
        )
    if finished:
        count = len(vectors if questions is None else questions)
        Console().print(f"{given.output}: {count:,} questions, all encoded", markup=False)


if __name__ == "__main__":
    main()
