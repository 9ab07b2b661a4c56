"""Resume an interrupted training from its last complete checkpoint, and only with the same settings."""

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

NOTE = "run.json"  # file in the output folder with the settings of the run

# The Trainer's own arguments that affect the result of a run.
DECISIVE = {
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "optim", "max_steps", "num_train_epochs", "gradient_accumulation_steps", "seed", "bf16", "fp16",
    "train_sampling_strategy", "data_seed", "lr_scheduler_kwargs", "gradient_checkpointing",
}  # fmt: skip


class Progress(TypedDict):
    """The fields of `trainer_state.json` that this file reads."""

    global_step: int
    max_steps: int


def last_checkpoint(folder: str) -> str | None:
    """The latest complete checkpoint."""
    whole = [checkpoint for checkpoint in checkpoints(folder) if is_whole(checkpoint)]
    return str(whole[-1]) if whole else None


def chosen_checkpoint(args: AMERTrainingArguments) -> str | None:
    """The checkpoint to resume from: the requested folder, or the last complete checkpoint of the output folder.

    As in the scripts of transformers, `--resume_from_checkpoint True` requires a checkpoint in the output folder.
    Without the option, a training without checkpoints starts from the beginning.

    Raises:
        ValueError: The option is `True` but there is no checkpoint, or it is `False`.
    """
    asked, last = args.resume_from_checkpoint, last_checkpoint(args.output_dir)
    if asked is None or str(asked).lower() not in ("true", "false"):
        return asked or last
    if str(asked).lower() == "false":
        raise ValueError(
            "resume_from_checkpoint is False, but an interrupted training always resumes: to start a new one, use "
            "another output_dir"
        )
    if last is None:
        raise ValueError(
            f"resume_from_checkpoint is True, but {args.output_dir} holds no complete checkpoint: leave out the "
            "option, or give the folder of a checkpoint"
        )
    return last


def steps_of(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """The number of finished steps in the saved state of the Trainer, and the training's total number of steps.

    Raises:
        FileNotFoundError: The folder holds no state.
        ValueError: The file is not the state of a training.
    """
    file = Path(folder, TRAINER_STATE)
    try:
        state = read_manifest(file, Progress)
    except ValueError as error:
        raise ValueError(f"{file} is not the state of a training ({error}): remove its folder") from error
    return state["global_step"], state["max_steps"]


def is_trained(folder: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint, or the model in an output folder, was saved at the last step."""
    done, wanted = steps_of(folder)
    return done >= wanted


def is_finished(output: Path, checkpoint: str | None, asked_for: bool = False) -> bool:
    """Whether the training has finished and saved everything; the state of the last step is written last.

    The state itself tells, because checkpoints may be off, deleted, or only those of the best steps.

    Args:
        output: The output folder.
        checkpoint: The checkpoint that the training would go on from.
        asked_for: Whether the user named this checkpoint. If it is not of the last step, the training goes on from it.
    """
    if not any(output.glob("model*.safetensors")):
        return False
    try:
        finished = is_trained(output)
    except (FileNotFoundError, ValueError):  # the process ended before or while it wrote the state
        return False
    if checkpoint is None or not finished:
        return finished
    return steps_of(output)[0] >= steps_of(checkpoint)[0] and (is_trained(checkpoint) or not asked_for)


def settings_of(model_args: ModelArguments, data_args: DataArguments, args: AMERTrainingArguments) -> dict[str, Any]:
    """The settings that decide a run, for JSON. The number of processes may change, the total batch size may not."""
    own = {item.name for item in fields(AMERTrainingArguments)} - {item.name for item in fields(TrainingArguments)}
    values = args.to_dict()
    chosen = {name: values[name] for name in sorted(own | DECISIVE)}
    batch = {"batch_of_all_processes": args.per_device_train_batch_size * args.world_size}
    data = {"dataset": data_args.dataset, "store": data_args.store}
    return _one_spelling({**asdict(model_args), **data, **batch, **chosen})


def _one_spelling(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with one spelling where several mean the same; the notes of earlier versions have all of them."""
    settings = dict(settings)
    if settings.pop("anchored", False) and settings.get("anchor") is None:
        settings["anchor"] = "vector"
    always = settings.get("layers") or settings.get("anchor") == "tokens"  # see ModelArguments.reads_tokens
    settings["token_vectors"] = bool(always or settings.get("token_vectors"))
    return settings


def _same_folder(before: Any, now: Any) -> bool:
    """Whether both name the same existing folder, for example once as an absolute and once as a relative path."""
    if not isinstance(before, str) or not isinstance(now, str) or not os.path.isdir(now):
        return False
    return os.path.realpath(before) == os.path.realpath(now)


def check_same_run(output: Path, checkpoint: str | None, settings: dict[str, Any]) -> None:
    """Refuse to go on with the training of a folder, or to replace a finished one, with other settings.

    Raises:
        ValueError: The folder holds a checkpoint or a finished training with other settings; the message lists them.
    """
    finished = is_finished(output, checkpoint)
    if not (checkpoint or finished) or not (output / NOTE).is_file():
        return
    before = _one_spelling(read_manifest(output / NOTE, dict))
    differing = [
        f"{name} (was {before.get(name)!r}, now {value!r})"
        for name, value in settings.items()
        if before.get(name) != value and not _same_folder(before.get(name), value)
    ]
    if differing:
        raise ValueError(
            f"{output} holds a {'finished training' if finished else 'checkpoint'} with other settings: "
            f"{', '.join(differing)}. Use another output_dir."
        )
