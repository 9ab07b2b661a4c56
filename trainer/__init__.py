"""How AMER learns: arguments, collator, matching, losses and the trainer."""

from amer.trainer.arguments import AMERTrainingArguments
from amer.trainer.collator import AMERCollator
from amer.trainer.metrics import RetrievalMetrics
from amer.trainer.trainer import AMERTrainer

__all__ = ["AMERCollator", "AMERTrainer", "AMERTrainingArguments", "RetrievalMetrics"]
