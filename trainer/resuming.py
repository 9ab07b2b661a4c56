"""Go on with an interrupted training: from its last whole checkpoint, and only with the same settings."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from typing_extensions import TypedDict

from amer.files import read_manifest
from amer.trainer.arguments import AMERTrainingArguments, DataArguments, ModelArguments
from amer.trainer.checkpoints import TRAINER_STATE, checkpoints, is_whole

NOTE = "run.json"  # in the output folder: the settings of the run

# Of the Trainer's own arguments, those that decide what a run ends in.
DECISIVE = {
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "optim", "max_steps", "num_train_epochs", "gradient_accumulation_steps", "seed", "bf16", "fp16",
    "train_sampling_strategy", "data_seed", "lr_scheduler_kwargs", "gradient_checkpointing",
}  # fmt: skip


class Progress(TypedDict):
    """What `trainer_state.json` says that is read here."""

    global_step: int
    max_steps: int


def last_checkpoint(folder: str) -> str | None:
    """The latest checkpoint that was written whole."""
    whole = [checkpoint for checkpoint in checkpoints(folder) if is_whole(checkpoint)]
    return str(whole[-1]) if whole else None


def chosen_checkpoint(args: AMERTrainingArguments) -> str | None:
    """Where a training goes on: the folder that is asked for, or the last whole checkpoint of the output folder.

    As in the scripts of transformers, `--resume_from_checkpoint True` means the last checkpoint, which must be there.
    Without the option there need be none.

    Raises:
        ValueError: `True` in a folder without a checkpoint, or `False`.
    """
    asked, last = args.resume_from_checkpoint, last_checkpoint(args.output_dir)
    if asked is None or str(asked).lower() not in ("true", "false"):
        return asked or last
    if str(asked).lower() == "false":
        raise ValueError(
            "resume_from_checkpoint is False, but an interrupted training goes on by itself: for a new one, give "
            "another output_dir"
        )
    if last is None:
        raise ValueError(
            f"resume_from_checkpoint is True, but {args.output_dir} holds no checkpoint that was written whole: leave "
            "the option out, or give the folder of a checkpoint"
        )
    return last


def steps_of(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """The steps that were trained when the Trainer's state was saved there, and those that the training has in all.

    Raises:
        FileNotFoundError: there is no state.
        ValueError: it is not the state of a training.
    """
    file = Path(folder, TRAINER_STATE)
    try:
        state = read_manifest(file, Progress)
    except ValueError as error:
        raise ValueError(f"{file} is not the state of a training ({error}): remove its folder") from error
    return state["global_step"], state["max_steps"]


def is_trained(checkpoint: str | os.PathLike[str]) -> bool:
    """Whether the checkpoint is of the last step."""
    done, wanted = steps_of(checkpoint)
    return done >= wanted


def is_finished(output: Path, checkpoint: str | None) -> bool:
    """Whether the training came to its end and everything was saved: the state of the last step is written last."""
    saved = (output / TRAINER_STATE).is_file() and any(output.glob("model*.safetensors"))
    if checkpoint is None or not saved or not is_trained(checkpoint):
        return False
    return steps_of(output)[0] >= steps_of(checkpoint)[0]


def settings_of(model_args: ModelArguments, data_args: DataArguments, args: AMERTrainingArguments) -> dict[str, Any]:
    """What decides a run, as JSON holds it. How many processes share a batch may change, the batch may not."""
    own = {item.name for item in fields(AMERTrainingArguments)} - {item.name for item in fields(TrainingArguments)}
    values = args.to_dict()
    chosen = {name: values[name] for name in sorted(own | DECISIVE)}
    batch = {"batch_of_all_processes": args.per_device_train_batch_size * args.world_size}
    data = {"dataset": data_args.dataset, "store": data_args.store}
    return {**asdict(model_args), **data, **batch, **chosen}


def _same_folder(before: Any, now: Any) -> bool:
    """Whether both name one folder that is there: with a slash at the end, or from the root."""
    if not isinstance(before, str) or not isinstance(now, str) or not os.path.isdir(now):
        return False
    return os.path.realpath(before) == os.path.realpath(now)


def check_same_run(output: Path, checkpoint: str | None, settings: dict[str, Any]) -> None:
    """Refuse to go on with a checkpoint of something else.

    Raises:
        ValueError: the folder holds a checkpoint of other settings; names them.
    """
    if checkpoint is None or not (output / NOTE).is_file():
        return
    before = read_manifest(output / NOTE, dict)
    differing = [
        f"{name} (was {before.get(name)!r}, now {value!r})"
        for name, value in settings.items()
        if before.get(name) != value and not _same_folder(before.get(name), value)
    ]
    if differing:
        raise ValueError(
            f"{output} holds a checkpoint of other settings: {', '.join(differing)}; use another output_dir."
        )
