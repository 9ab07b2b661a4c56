"""Encode many questions into a directory of query embeddings, shard by shard. An interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn.functional import pad
from typing_extensions import TypedDict

from amer.corpus.encoder import DocumentEncoder
from amer.corpus.shards import Shards
from amer.corpus.store import complete_encoder, differing_fields
from amer.files import Count, read_manifest
from amer.locks import share_directory

if TYPE_CHECKING:
    from modeling_amer import AMERModel

EMBEDDINGS_FILE = "query_embeddings.json"
# Fields of a model's configuration that determine its vectors beside its weights.
SETTINGS = (
    "anchor",
    "token_vectors",
    "emission",
    "stop_score",
    "splits_questions",
    "max_query_vectors",
    "max_query_length",
    "context_weight",
    "encoder_weight",
)


class EmbeddingsInfo(TypedDict):
    """Fields of `query_embeddings.json` that are read back."""

    count: Count
    num_query_vectors: Count
    dim: Count
    shard_size: Count
    checksums: list[str]


def encode_queries(
    model: AMERModel,
    path: str | os.PathLike[str],
    questions: Sequence[str] | None = None,
    input_vectors: np.ndarray | None = None,
    num_query_vectors: int | None = None,
    batch_size: int = 64,
    shard_size: int = 1_024,
    worker: int = 0,
    num_workers: int = 1,
    show_progress_bar: bool = True,
    encoder: DocumentEncoder | None = None,
) -> bool:
    """Write the query embeddings of many questions to a directory. The same call again resumes an interrupted run.

    Each shard is written atomically and independently, so a resumed run gives the same bytes as an uninterrupted one.
    `load_query_embeddings` reads the finished directory.

    Several processes can share the work on one directory: each makes this call with its own `worker`. A process that
    finds all shards present finishes the directory. A resumed run may use another number of workers.

    Args:
        model: The retriever, already on its device.
        path: A directory: new, empty, or left by an earlier call with the same arguments.
        questions: All questions as text, also if several workers share them.
        input_vectors: `(n, dim)` vectors of the same questions, for an anchored or a vector-only model.
        num_query_vectors: Number of query vectors m. Default: the model's own number. A model that chooses it for each
            question fills up to its `max_query_vectors` with zeros.
        batch_size: Number of questions to encode at a time.
        shard_size: Questions per file, and the most work that an interruption can lose.
        worker: Number of this process, from 0. It encodes every `num_workers`-th shard, starting with this one.
        num_workers: Number of processes that share the work.
        show_progress_bar: Show how many questions are done.
        encoder: The document encoder, instead of `input_vectors`: embeds the questions of an anchored model shard by
            shard.

    Returns:
        Whether the directory is finished: False while other workers or processes have shards left to write.

    Raises:
        ValueError: `path` belongs to other questions or to another model, m or shard size. Or the questions are
            missing, empty or of a kind the model does not read, a vector is not finite, or the document encoder is
            not the model's.
        FileExistsError: `path` holds other files.
    """
    path = Path(path)
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    if encoder is not None:
        if input_vectors is not None:
            raise ValueError("got both input_vectors and an encoder: pass one of them")
        check_encoder(model, encoder)
    questions, input_vectors, count = _checked(questions, input_vectors)
    encode = _encoding(model, questions, input_vectors, num_query_vectors, batch_size, encoder)
    _, m, dim = encode(slice(0, 1)).shape  # fails before anything is written if the model cannot read these inputs
    info = {
        "count": count,
        "num_query_vectors": m,
        "dim": dim,
        "shard_size": shard_size,
        "questions_sha256": None if questions is None else _sha256(json.dumps(questions).encode()),
        "query_vectors_sha256": None if input_vectors is None else _sha256(input_vectors.data),
        "query_encoder": None if encoder is None else complete_encoder(encoder.identity),
        **model_identity(model),
    }
    shards = _shards(path, info)
    with share_directory(path, EMBEDDINGS_FILE, info):
        if not (path / EMBEDDINGS_FILE).is_file():
            shards.fill(shards.of_worker(worker, num_workers), encode, "question", show_progress_bar)
            if not shards.missing():
                shards.finish(EMBEDDINGS_FILE, info)
    return (path / EMBEDDINGS_FILE).is_file()


def query_embeddings_of(model: Any, num_query_vectors: int | Literal["auto"] | None, **questions: Any) -> torch.Tensor:
    """Encode questions with `model.encode_query`, by default with as many vectors as the model chooses.

    Args:
        model: The retriever.
        num_query_vectors: m, or "auto" to let the model choose. None: "auto" if the model can choose, else the model's
            own number.
        questions: The other arguments of `encode_query`.

    Returns:
        `(q, m, dim)`. Zeros stand for a vector that the model did not emit.
    """
    m = "auto" if num_query_vectors is None and model.config.chooses_number else num_query_vectors
    encoded = model.encode_query(num_query_vectors=m, **questions)
    query_embeddings: torch.Tensor = encoded.query_embeddings if m == "auto" else encoded
    return query_embeddings


def _encoding(
    model: AMERModel,
    questions: Sequence[str] | None,
    input_vectors: np.ndarray | None,
    num_query_vectors: int | None,
    batch_size: int,
    encoder: DocumentEncoder | None,
) -> Callable[[slice], np.ndarray]:
    """Return the function that encodes some rows of the questions as `(rows, m, dim)`."""
    fills_up = num_query_vectors is None and model.config.chooses_number

    def encode(rows: slice) -> np.ndarray:
        texts = None if questions is None else questions[rows]
        vectors = None if input_vectors is None else input_vectors[rows]
        if encoder is not None and texts is not None:
            vectors = encoder.encode_queries(texts, batch_size)
        encoded = query_embeddings_of(
            model, num_query_vectors, texts=texts, input_vectors=vectors, batch_size=batch_size
        )
        if fills_up:
            encoded = pad(encoded, (0, 0, 0, model.config.max_query_vectors - encoded.shape[1]))
        return encoded.float().numpy()

    return encode


def load_query_embeddings(path: str | os.PathLike[str]) -> np.ndarray:
    """Read query embeddings that `encode_queries` wrote, and verify their checksums.

    Returns:
        `(n, m, dim)` unit vectors, float32, in the order of the questions. Zeros stand for a vector that the model did
        not emit.

    Raises:
        FileNotFoundError: Encoding has not finished, or a file is missing.
        OSError: A file is truncated or damaged. The message names it.
        ValueError: A file does not fit `query_embeddings.json`, or `query_embeddings.json` is invalid.
    """
    file = Path(path) / EMBEDDINGS_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} has no {EMBEDDINGS_FILE}, so its query embeddings are not finished: run encode_queries again "
            "with the same arguments to resume"
        )
    info = read_manifest(file, EmbeddingsInfo)
    shards = _shards(file.parent, info)
    if len(info["checksums"]) != len(shards):
        raise ValueError(f"{file} has {len(info['checksums'])} checksums for {len(shards)} shards")
    embeddings = np.empty((info["count"], *shards.row_shape), dtype=np.float32)
    for index, checksum in enumerate(info["checksums"]):
        embeddings[shards.rows(index)] = shards.open(index)
        shards.verify(index, checksum)
    return embeddings


def model_identity(model: AMERModel) -> dict[str, Any]:
    """Return everything that determines a model's vectors except the machine: settings, precision and all weights."""
    config = model.config
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return {
        "base_model": config.base_model_name_or_path,
        "base_model_revision": config.base_model_revision,
        "prompt_template": config.prompt_template,
        "document_encoder": config.document_encoder and complete_encoder(config.document_encoder),
        "precision": str(model.dtype).removeprefix("torch."),
        "encoder_precision": str(model.document_encoder_dtype or "").removeprefix("torch.") or None,
        **{name: getattr(config, name) for name in SETTINGS},
        "weights_sha256": weights.hexdigest(),
    }


def _shards(path: Path, info: Mapping[str, Any]) -> Shards:
    row_shape = (info["num_query_vectors"], info["dim"])
    return Shards(path, "query_embeddings", info["count"], info["shard_size"], row_shape, "float32")


def check_encoder(model: AMERModel, encoder: DocumentEncoder) -> None:
    """Check that a document encoder is the model's.

    Raises:
        ValueError: Its name, revision or one of its prompts differs.
    """
    wanted, found = complete_encoder(model.config.document_encoder or {}), complete_encoder(encoder.identity)
    if differing_fields(found, wanted):
        raise ValueError(
            f"the model was trained with the document encoder {wanted}, got {found}: pass the model's own"
        )


def _checked(
    questions: Sequence[str] | None, input_vectors: np.ndarray | None
) -> tuple[list[str] | None, np.ndarray | None, int]:
    """Return the questions as a list, the vectors as float32, and their common number."""
    if questions is not None:
        from modeling_amer import as_questions

        questions = as_questions([questions] if isinstance(questions, str) else questions)
    if input_vectors is not None:
        input_vectors = np.ascontiguousarray(input_vectors, dtype=np.float32)
        if not np.isfinite(input_vectors).all():
            raise ValueError("input_vectors hold NaN or infinite values: the encoder that made them is broken")
    columns = {"questions": questions, "input_vectors": input_vectors}
    counts = {name: len(column) for name, column in columns.items() if column is not None}
    if len({*counts.values()}) != 1 or 0 in counts.values():
        raise ValueError(
            f"got {counts or 'no questions'}: pass at least one question; with both, as many vectors as questions"
        )
    return questions, input_vectors, next(iter(counts.values()))


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
