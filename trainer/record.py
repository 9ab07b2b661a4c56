"""What a finished training was: settings, data, machine, seconds, losses. Facts as JSON holds them."""

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

# Told whether they were changed or not.
ESSENTIAL = (
    "objective", "temperature", "scheduled_sampling", "max_targets", "num_random_negatives", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "optim", "adam_beta1", "adam_beta2", "weight_decay", "max_grad_norm", "seed",
)  # fmt: skip
# Where things were written, shown and sent: not what was trained. Counts and batch sizes have places of their own.
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
    """Writes the seconds trained so far into the log history, which checkpoints keep: a resumed run counts on.

    What an interrupted run did after its last checkpoint is not counted, for it is done again.
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
    """What a card says of a training that is done.

    Args:
        trainer: an `AMERTrainer` after `train`. Its seconds are known if it had a `TrainingClock`.
        dataset: of the training questions: the contents of `dataset.json`, with `repo_id` or `name`.
        store: of the documents: the contents of `store.json`, with `repo_id` or `name`.

    Returns:
        facts that JSON can hold; what is not known is left out.
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
    """The essential settings, and what else differs from its default."""
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
    """A setting as JSON holds it; an object of another library by its text."""
    return json.loads(json.dumps(value, default=str))


def _seconds(history: Iterable[dict[str, Any]]) -> float | None:
    return max((entry["seconds"] for entry in history if "seconds" in entry), default=None)


def _candidates(history: Iterable[dict[str, Any]]) -> dict[str, int] | None:
    logged = [int(entry["num_candidates"]) for entry in history if "num_candidates" in entry]
    return {"least": min(logged), "most": max(logged)} if logged else None


def _best(args: TrainingArguments, state: Any) -> dict[str, Any] | None:
    """The checkpoint that was loaded at the end."""
    if state.best_metric is None:
        return None
    name = args.metric_for_best_model or "loss"
    name = name if name.startswith("eval_") else f"eval_{name}"
    return {"metric": name, "value": state.best_metric, "step": state.best_global_step}


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """A log entry in which a loss that was no number is null, which JSON can hold."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
