"""Go on with an interrupted training: from its last whole checkpoint, and only with the same settings."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from transformers import TrainingArguments

from amer.files import read_json, write_json
from amer.trainer.arguments import AMERTrainingArguments, DataArguments, ModelArguments

NOTE = "run.json"  # in the output folder: the settings of the run

# Of the Trainer's own arguments, those that decide what a run ends in.
DECISIVE = {
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "optim", "max_steps", "num_train_epochs", "gradient_accumulation_steps", "seed", "bf16", "fp16",
    "train_sampling_strategy", "data_seed", "lr_scheduler_kwargs", "gradient_checkpointing",
}  # fmt: skip


def last_checkpoint(folder: str) -> str | None:
    """The latest checkpoint that was written whole: the Trainer writes its state last."""
    whole = [file.parent for file in Path(folder).glob("checkpoint-*/trainer_state.json") if _is_json(file)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _is_json(file: Path) -> bool:
    """Whether all of it was written."""
    try:
        read_json(file)
    except ValueError:
        return False
    return True


def check_same_run(
    folder: Path,
    checkpoint: str | None,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: AMERTrainingArguments,
) -> None:
    """Note what is trained here; a checkpoint of something else is not gone on with.

    How many processes share a batch may change, the batch may not.

    Raises:
        ValueError: the folder holds a checkpoint of other settings; names them.
    """
    own = {item.name for item in fields(AMERTrainingArguments)} - {item.name for item in fields(TrainingArguments)}
    given = args.to_dict()
    chosen = {name: given[name] for name in sorted(own | DECISIVE)}
    batch = {"batch_of_all_processes": args.per_device_train_batch_size * args.world_size}
    data = {"dataset": data_args.dataset, "store": data_args.store}
    settings = {**asdict(model_args), **data, **batch, **chosen}
    note = folder / NOTE
    if checkpoint is not None and note.is_file():
        before = read_json(note)
        differing = [
            f"{name} (was {before.get(name)!r}, now {value!r})"
            for name, value in settings.items()
            if before.get(name) != value
        ]
        if differing:
            raise ValueError(
                f"{folder} holds a checkpoint of other settings: {', '.join(differing)}; use another output_dir."
            )
    if args.process_index == 0:
        write_json(note, settings)
