"""The record of a finished training: settings, data, machine, duration and losses, as JSON values."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from amer.machine import hardware, versions

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

# Settings that the record always lists.
ESSENTIAL = (
    "objective", "temperature", "scheduled_sampling", "max_targets", "num_random_negatives", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "optim", "adam_beta1", "adam_beta2", "weight_decay", "max_grad_norm", "seed",
)  # fmt: skip
# Settings of output, display and transfer, which do not affect the training. Counts and batch sizes have own fields.
OTHER_MATTERS = (
    "output_dir", "run_name", "project", "log_level", "log_level_replica", "log_on_each_node", "logging_", "report_to",
    "disable_tqdm", "trackio_", "push_to_hub", "hub_", "save_", "resume_from_checkpoint", "restore_callback_states",
    "skip_memory_metrics", "do_train", "do_eval", "do_predict", "local_rank", "debug", "use_cpu", "accelerator_config",
    "dataloader_", "ddp_", "remove_unused_columns", "label_names", "include_for_metrics", "eval_", "max_steps",
    "num_train_epochs", "per_device_", "gradient_accumulation_steps", "load_best_model_at_end",
    "metric_for_best_model", "greater_is_better", "enable_jit_checkpoint", "length_column_name",
    "deepspeed", "fsdp_config",
)  # fmt: skip


class TrainingClock(TrainerCallback):
    """Writes the training time so far into the log history. Checkpoints keep it, so a resumed run continues the count.

    The time of an interrupted run after its last checkpoint does not count, because that work is repeated.
    """

    def __init__(self) -> None:
        self._started = self._before = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._before = _seconds(state.log_history) or 0.0
        self._started = time.perf_counter()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.log_history:
            state.log_history[-1]["seconds"] = round(self._before + time.perf_counter() - self._started, 1)


def training_record(
    trainer: Trainer, dataset: dict[str, Any] | None = None, store: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Collect the facts about a finished training for its card.

    Args:
        trainer: An `AMERTrainer` after `train`. With a `TrainingClock`, the record includes the training time.
        dataset: Contents of the questions' `dataset.json`, with `repo_id` or `name`.
        store: Contents of the documents' `store.json`, with `repo_id` or `name`.

    Returns:
        JSON values; unknown facts are left out.
    """
    args, state = trainer.args, trainer.state
    model = trainer.accelerator.unwrap_model(trainer.model)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": _settings(args),
        "steps": state.global_step,
        "epochs": state.epoch,
        "seconds": _seconds(state.log_history),
        "batch": {
            "per_process": args.train_batch_size,
            "processes": args.world_size,
            "accumulation": args.gradient_accumulation_steps,
            "effective": args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
        },
        "candidates_per_query": _candidates(state.log_history),
        "lora": _plain(model.config.lora),
        "parameters": {"trained": model.num_parameters(only_trainable=True), "all": model.num_parameters()},
        "best": _best(args, state) if args.load_best_model_at_end else None,
        "hardware": hardware(args.device, args.world_size),
        "versions": versions(),
        "dataset": _without_checksums(dataset),
        "store": _without_checksums(store),
        "log_history": [_finite(entry) for entry in state.log_history],
    }
    return {name: value for name, value in record.items() if value is not None}


def _without_checksums(info: dict[str, Any] | None) -> dict[str, Any] | None:
    return info and {key: value for key, value in info.items() if key != "checksums"}


def _settings(args: TrainingArguments) -> dict[str, Any]:
    """The essential settings, and all others that differ from their defaults."""
    values, chosen = args.to_dict(), {}
    for item in fields(args):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        default = default.value if isinstance(default, Enum) else default
        value = values.get(item.name)
        differs = value != default and (value or default) and not item.name.startswith(OTHER_MATTERS)
        if item.name in ESSENTIAL or differs:
            chosen[item.name] = _plain(value)
    first = [name for name in ESSENTIAL if name in chosen]
    return {name: chosen[name] for name in [*first, *(name for name in chosen if name not in first)]}


def _plain(value: Any) -> Any:
    """A setting as a JSON value; objects of other libraries become strings."""
    return json.loads(json.dumps(value, default=str))


def _seconds(history: Iterable[dict[str, Any]]) -> float | None:
    return max((entry["seconds"] for entry in history if "seconds" in entry), default=None)


def _candidates(history: Iterable[dict[str, Any]]) -> dict[str, int] | None:
    logged = [int(entry["num_candidates"]) for entry in history if "num_candidates" in entry]
    return {"least": min(logged), "most": max(logged)} if logged else None


def _best(args: TrainingArguments, state: Any) -> dict[str, Any] | None:
    """The best checkpoint, which was loaded at the end."""
    if state.best_metric is None:
        return None
    name = args.metric_for_best_model or "loss"
    name = name if name.startswith("eval_") else f"eval_{name}"
    return {"metric": name, "value": state.best_metric, "step": state.best_global_step}


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """A log entry for JSON, with null in place of NaN and infinite values."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
