"""How AMER learns: arguments, collator, matching, losses and the trainer."""

from trainer.arguments import AMERTrainingArguments
from trainer.collator import AMERCollator
from trainer.metrics import RetrievalMetrics
from trainer.trainer import AMERTrainer

__all__ = ["AMERCollator", "AMERTrainer", "AMERTrainingArguments", "RetrievalMetrics"]
