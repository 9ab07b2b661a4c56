"""Run a whole training, for `amer train` and `train.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from transformers import set_seed
from transformers.utils import logging

from amer.corpus import DocumentEncoder, DocumentStore
from amer.data import RetrievalDataset, load_dataset_dir
from amer.data.question_vectors import add_question_vectors
from amer.files import read_json, write_json
from amer.hub import origin, pull_folder
from amer.locks import own_directory
from amer.search import locate_encoder
from amer.trainer.arguments import AMERTrainingArguments, DataArguments, ModelArguments
from amer.trainer.building import build_model, build_trainer
from amer.trainer.parsing import parse
from amer.trainer.record import training_record
from amer.trainer.resuming import NOTE, check_same_run, chosen_checkpoint, is_finished, settings_of

logger = logging.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Train with the settings of a command line, `[CONFIG] [--any_field value ...]` (default: that of the process)."""
    train(*parse(sys.argv[1:] if argv is None else argv))


def train(model_args: ModelArguments, data_args: DataArguments, args: AMERTrainingArguments) -> None:
    """Train, and save model, state and record in `args.output_dir`.

    An interrupted training resumes. A finished training is left unchanged.

    Raises:
        OSError: The dataset, the store, its encoder (if needed) or the base model cannot be loaded, or another
            training is running in the folder.
        ValueError: The dataset has no split `train`, or the folder holds a checkpoint or a finished training
            with other settings.
    """
    with own_directory(Path(args.output_dir), "training") if args.process_index == 0 else nullcontext():
        _train(model_args, data_args, args)


def _train(model_args: ModelArguments, data_args: DataArguments, args: AMERTrainingArguments) -> None:
    output, checkpoint = Path(args.output_dir), chosen_checkpoint(args)
    settings = settings_of(model_args, data_args, args)
    check_same_run(output, checkpoint, settings)
    if is_finished(output, checkpoint, asked_for=checkpoint == args.resume_from_checkpoint):
        logger.warning(
            f"{output} holds this training, already finished: nothing to do. For a new one, use another output_dir."
        )
        return
    store = DocumentStore.open(pull_folder(data_args.store))
    dataset = pull_folder(data_args.dataset)
    splits = load_dataset_dir(dataset)
    if "train" not in splits:
        raise ValueError(
            f"{data_args.dataset} has no split `train`, only {', '.join(splits)}: add the file train.parquet."
        )
    reads_text = splits["train"].queries is not None
    if model_args.anchor == "vector" and not model_args.reads_tokens:
        splits = _with_anchors(splits, store, data_args, args)
    set_seed(args.seed)  # loading an encoder may have drawn random numbers
    model = build_model(model_args, store, reads_text)
    locate_encoder(model)
    searched = data_args.max_eval_queries, tuple(data_args.eval_ks), data_args.eval_search_device
    trainer = build_trainer(model, args, store, splits, *searched, data_args.token_cache)
    trainer.sources = {
        "dataset": {**origin(data_args.dataset, dataset), **read_json(dataset / "dataset.json")},
        "store": {**origin(data_args.store, store.path), **store.info},
    }
    if trainer.is_world_process_zero():
        write_json(output / NOTE, settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_json(output / "training_record.json", training_record(trainer, **trainer.sources))
    trainer.save_state()


def _with_anchors(
    splits: dict[str, RetrievalDataset], store: DocumentStore, data_args: DataArguments, args: AMERTrainingArguments
) -> dict[str, RetrievalDataset]:
    """The training and validation splits with a vector per question, from the dataset or from the store's encoder."""
    used = {name: split for name, split in splits.items() if name in ("train", "validation")}
    if all(split.input_vectors is not None for split in used.values()):
        return used
    try:
        encoder = DocumentEncoder.from_identity(store.encoder, str(args.device), data_args.trust_remote_code)
    except OSError as error:
        raise OSError(
            f"an anchored model reads vectors of the questions. {data_args.dataset} has none, and the store's encoder "
            f"{store.encoder['name']} could not be loaded: make the encoder available, or add vectors with "
            f"`RetrievalDataset.with_input_vectors`. {error}"
        ) from error
    return add_question_vectors(used, encoder, show_progress_bar=args.local_process_index == 0)
