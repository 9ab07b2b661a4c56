"""Training of AMER: arguments, collator, matching, losses and the trainer."""

from amer.trainer.arguments import SINGLE_QUERY, AMERTrainingArguments
from amer.trainer.collator import AMERCollator
from amer.trainer.metrics import RetrievalMetrics
from amer.trainer.trainer import AMERTrainer

__all__ = ["SINGLE_QUERY", "AMERCollator", "AMERTrainer", "AMERTrainingArguments", "RetrievalMetrics"]
