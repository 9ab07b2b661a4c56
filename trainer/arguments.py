"""What can be set about training: everything of `TrainingArguments`, and the few fields that are AMER's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from amer.trainer.sampling import SCHEDULES
from modeling_amer.configuration_amer import OBJECTIVES

SINGLE_QUERY = {"max_targets": 1, "num_query_vectors": 1}
"""The baseline Single-Query (paper §5.2) as fields of the training: one vector, one target drawn anew each time."""


@dataclass
class AMERTrainingArguments(TrainingArguments):
    """Arguments of [`AMERTrainer`].

    Changed from `TrainingArguments`: `remove_unused_columns` is False and `label_names` empty, since the collator
    reads whole dataset rows and the loss is the trainer's; of `train_sampling_strategy` there are two.

    Raises:
        ValueError: an unknown objective or schedule, a temperature that is not positive, a count below its least, or a
            way of dealing batches that is not supported.
    """

    # Parameters that control the loss
    objective: str = field(
        default="matched",
        metadata={"help": "matched: the paper's InfoNCE, query vectors matched to targets; mixture: all explain all."},
    )
    temperature: float = field(default=0.05, metadata={"help": "tau of Eq. 1."})
    span_weight: float = field(
        default=0.5,
        metadata={
            "help": "Where the dataset has spans: vector j gets target j, and -log of its attention within the span "
            "of part j is added to the loss with this weight (token anchors). 0: targets are matched, spans not used."
        },
    )
    stop_weight: float = field(
        default=0.5, metadata={"help": "Weight of the stop score's cross-entropy, for a model that has one."}
    )
    scheduled_sampling: str = field(
        default="linear",
        metadata={"help": "linear: the paper's min(0.8, step / total); always_predicted; teacher_forcing."},
    )

    # Parameters that control the data
    max_targets: int | None = field(
        default=None, metadata={"help": "Targets used of each question, drawn anew each time; 1 is Single-Query."}
    )
    num_random_negatives: int = field(
        default=32,
        metadata={
            "help": "Random documents of the whole corpus that each question brings. All questions of a forward pass, "
            "in all processes, share them; gradient accumulation does not enlarge the candidates of a query."
        },
    )
    train_sampling_strategy: str = field(
        default="random",
        metadata={"help": "random; group_by_length: batches of questions of about equal length, less padding."},
    )

    # Changed defaults
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads whole rows."})
    label_names: list[str] | None = field(default_factory=list, metadata={"help": "The loss needs no label column."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {self.objective!r}.")
        if self.scheduled_sampling not in SCHEDULES:
            raise ValueError(
                f"scheduled_sampling must be one of {', '.join(SCHEDULES)}; got {self.scheduled_sampling!r}."
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}.")
        for name in ("span_weight", "stop_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.max_targets is not None and self.max_targets < 1:
            raise ValueError(f"max_targets must be at least 1, got {self.max_targets}.")
        if self.num_random_negatives < 0:
            raise ValueError(f"num_random_negatives must not be negative, got {self.num_random_negatives}.")
        if self.auto_find_batch_size:
            raise ValueError(
                "auto_find_batch_size would change the candidates of a query: set a batch size that fits."
            )
        if self.train_sampling_strategy not in ("random", "group_by_length"):
            raise ValueError(
                f"train_sampling_strategy must be random or group_by_length; got {self.train_sampling_strategy!r}."
            )
