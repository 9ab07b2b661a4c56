"""Checkpoints: keep complete ones by step, delete old ones in one move, and report damaged ones before training."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from amer.files import read_manifest
from amer.trainer.arguments import AMERTrainingArguments
from modeling_amer.loading_amer import check_files

TRAINER_STATE = "trainer_state.json"
GOING = ".deleted-"  # prefix of a checkpoint that is being deleted, so that no one takes its rest for a checkpoint
STATES = ("*.pt", "*.pth", "*.bin")  # files of torch.save in a checkpoint


class CheckpointingTrainer(Trainer):
    """The Hugging Face Trainer with a safer deletion of old checkpoints.

    The Trainer orders checkpoints by modification time. The rest of an old checkpoint, after an interrupted deletion,
    would then count as the newest and push out a complete one.
    """

    args: AMERTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.save_total_limit = self.args.save_total_limit

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, as transformers' Trainer does.

        Raises:
            OSError: A file of the checkpoint is damaged; the message names it.
        """
        if isinstance(resume_from_checkpoint, str) and self.args.should_save:
            check_checkpoint(resume_from_checkpoint)
        self.save_total_limit, self.args.save_total_limit = self.args.save_total_limit, None  # applied in this class
        try:
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.args.save_total_limit = self.save_total_limit
        if self.save_total_limit == 1 and self.state.best_model_checkpoint is not None and self.args.should_save:
            for checkpoint in checkpoints(self.args.output_dir):
                if checkpoint.name != Path(self.state.best_model_checkpoint).name:
                    delete(checkpoint)
        return result

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        """Save a checkpoint, then delete the oldest above the limit.

        Raises:
            OSError: The checkpoint cannot be written, for example because the disk is full.
        """
        output = self._get_output_dir(trial=trial)
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:
            if not re.search("inline_container|PytorchStreamWriter", str(error)):
                raise
            raise OSError(
                f"The checkpoint of step {self.state.global_step} could not be written into {output}: is the disk "
                f"full? Free some space and run the same command again. ({str(error).splitlines()[0]})"
            ) from error
        if self.args.should_save and self.save_total_limit:
            rotate(output, self.save_total_limit, self.state.best_model_checkpoint)


def checkpoints(output: str | Path) -> list[Path]:
    """The checkpoints of an output folder, complete or not, ordered by step."""
    found = [path for path in Path(output).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def step_of(checkpoint: str | Path) -> int:
    """The step after which a checkpoint was saved, from its name."""
    return int(Path(checkpoint).name.rpartition("-")[2])


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has the Trainer's state, which is written last, and its weights."""
    try:
        read_manifest(checkpoint / TRAINER_STATE, dict)
    except (OSError, ValueError):
        return False
    return any(checkpoint.glob("model*.safetensors"))


def remove_unfinished(output: str | Path) -> None:
    """Delete incomplete checkpoints and saves, which killed trainings leave in their output folder."""
    for checkpoint in checkpoints(output):
        if not is_whole(checkpoint):
            delete(checkpoint)
    for pattern in (f"{GOING}*", ".amer-saving-*"):
        for left in Path(output).glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def rotate(output: str | Path, limit: int, best: str | None) -> None:
    """Delete the earliest checkpoints until at most `limit` remain; keep the last and the best."""
    there = checkpoints(output)
    kept = {there[-1].name, *([Path(best).name] if best is not None else [])} if there else set()
    old = [checkpoint for checkpoint in there if checkpoint.name not in kept]
    for checkpoint in old[: max(0, len(there) - max(limit, len(kept)))]:
        delete(checkpoint)


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint. If the deletion is interrupted, the rest does not keep the checkpoint's name."""
    going = checkpoint.with_name(f"{GOING}{checkpoint.name}")
    shutil.rmtree(going, ignore_errors=True)
    checkpoint.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def check_checkpoint(folder: str) -> None:
    """Check the files of a checkpoint before a training resumes from it.

    Raises:
        OSError: A file is truncated or damaged; the message names it.
    """
    for file in sorted(path for pattern in STATES for path in Path(folder).glob(pattern)):
        try:
            with ZipFile(file) as parts:
                damaged = parts.testzip()
        except (BadZipFile, OSError, EOFError):
            damaged = file.name
        if damaged is not None:
            raise OSError(
                f"{file} is truncated or damaged: remove its folder to resume from the previous checkpoint, or use "
                "another output_dir."
            )
    if (config := Path(folder, "config.json")).is_file():
        check_files(folder, read_manifest(config, dict), verify=True)
