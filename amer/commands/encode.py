"""`amer encode`: the query vectors of many questions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from amer.commands.options import Model, NumQueryVectors, Split, TrustRemoteCode, WorkerDevice

if TYPE_CHECKING:
    import numpy as np

    from amer.corpus import DocumentEncoder
    from modeling_amer import AMERConfig

QUESTION_FILES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")


def encode(
    model: Model,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the query vectors.")],
    questions: Annotated[
        Path | None,
        typer.Option(
            help="A .txt file with one question per line, or a .jsonl file of objects with the field `query`; may be "
            "gzipped (.gz)."
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="A dataset: a folder or a name on the Hub.")] = None,
    split: Split = "test",
    num_query_vectors: NumQueryVectors = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 64,
    shard_size: Annotated[int, typer.Option(min=1, help="Questions per file.")] = 1_024,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Precision of the decoder. Default: the precision it was trained in."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    device: WorkerDevice = None,
) -> None:
    """Encode many questions into query vectors.

    The questions come from a file or a dataset. If the model chooses the number of vectors of a question, zeros fill
    up to its maximum. Run the command again after an interruption to resume. It runs in one process, or in several:

    \b
    accelerate launch --num_processes 8 -m amer encode ...  (several GPUs)
    torchrun --nproc_per_node 4 -m amer encode ...          (several processes on CPUs)

    `amer.search.load_query_embeddings` reads the output.
    """
    if (questions is None) == (dataset is None):
        raise typer.BadParameter("give --questions FILE or --dataset DIR")
    from amer.corpus.workers import this_worker
    from amer.search import encode_queries, locate_encoder
    from modeling_amer import AMERModel

    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    texts: list[str] | None = None
    vectors: np.ndarray | None = None
    with this_worker(device) as worker:
        # LoRA stays apart: merged weights differ between machines, which may share the work.
        loaded = AMERModel.from_pretrained(model, **options).to(worker.device)
        locate_encoder(loaded)
        if questions is not None:
            texts = read_questions(questions)
        if dataset is not None:
            texts, vectors = read_split(dataset, split, loaded.config)
        embeds_questions = loaded.config.needs_question_vectors and vectors is None
        finished = encode_queries(
            loaded,
            output,
            texts,
            vectors,
            num_query_vectors=num_query_vectors,
            batch_size=batch_size,
            shard_size=shard_size,
            worker=worker.index,
            num_workers=worker.count,
            show_progress_bar=worker.is_first_here,
            encoder=load_encoder(loaded.config, worker.device, trust_remote_code) if embeds_questions else None,
        )
    if finished:
        from rich.console import Console

        count = next(len(column) for column in (texts, vectors) if column is not None)
        Console().print(f"{output}: all {count:,} questions are encoded", markup=False)


def read_questions(file: Path) -> list[str]:
    """The questions of a text or JSON Lines file, in order; blank lines are skipped.

    Raises:
        OSError: The file does not exist, or a gzipped file is truncated.
        ValueError: The file has another extension or no question, or a line is not UTF-8 or has no question; the
            message names file and line.
    """
    from amer.text_lines import checked_ending, read_lines, read_objects

    if checked_ending(file, QUESTION_FILES).startswith(".jsonl"):
        questions = [_query(record, str(place)) for place, record in read_objects(file)]
    else:
        lines = [line for _, lines in read_lines(file) for line in re.split(r"[\r\n]+", lines)]
        questions = [line for line in lines if line.strip()]
    if not questions:
        raise ValueError(f"{file} holds no question: give a file with at least one")
    return questions


def _query(record: dict[str, Any], where: str) -> str:
    query = record.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"{where}: not a JSON object with a non-empty text in the field `query` ({str(record)[:60]})")
    return query


def read_split(dataset: str, name: str, config: AMERConfig) -> tuple[list[str] | None, np.ndarray | None]:
    """The questions of a dataset's split in the form that the model takes: text, vectors, or both.

    Raises:
        ValueError: The split does not exist, or the model takes text and the questions have none.
    """
    from amer.data import load_split
    from amer.hub import pull_folder

    split = load_split(pull_folder(dataset), name)
    if config.takes_text and split.queries is None:
        raise ValueError(f"the questions of {dataset} are vectors, but this model reads text: give questions in text")
    vectors = split.input_vectors if config.reads_vectors and not config.token_vectors else None
    return split.queries if config.takes_text else None, vectors


def load_encoder(config: AMERConfig, device: str, trust_remote_code: bool) -> DocumentEncoder:
    """The document encoder that an anchored model was trained with."""
    from amer.corpus import DocumentEncoder
    from amer.corpus.store import complete_encoder

    return DocumentEncoder.from_identity(complete_encoder(config.document_encoder or {}), device, trust_remote_code)
