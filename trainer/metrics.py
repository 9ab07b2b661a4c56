"""Retrieval metrics during training: search the corpus with the query vectors of the validation questions."""

from __future__ import annotations

import numpy as np
from transformers import EvalPrediction

from amer.data import RetrievalDataset
from amer.evaluation import evaluate_run
from amer.search import search_lists, trained_fusion
from amer.search.index import Index
from amer.trainer.arguments import AMERTrainingArguments


class RetrievalMetrics:
    """`compute_metrics` of the Trainer: Recall@k and MRecall@k (paper §2) of the evaluation questions.

    Args:
        dataset: The evaluation split, linked to the store behind the index.
        index: Index of the whole corpus.
        args: Training arguments; the objective decides how the m ranked lists are fused.
        ks: Cut-offs.

    Raises:
        ValueError: The dataset is not linked to a store.
    """

    def __init__(
        self, dataset: RetrievalDataset, index: Index, args: AMERTrainingArguments, ks: tuple[int, ...] = (10, 100)
    ) -> None:
        self.targets = dataset.linked_rows
        self.index = index
        self.ks = ks
        self.fuse = trained_fusion(args.objective, args.temperature)

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Means over the questions.

        Args:
            prediction: `predictions (n, m, dim)` query vectors, zeros for absent ones; `label_ids (n,)` dataset rows.
        """
        if len(prediction.label_ids) != len(self.targets):
            raise ValueError(
                f"{len(prediction.label_ids)} questions were evaluated, but these metrics know the targets of "
                f"{len(self.targets)}: build RetrievalMetrics for the dataset that is evaluated."
            )
        depth, query_embeddings = max(self.ks), np.asarray(prediction.predictions)
        rows, scores = search_lists(self.index, query_embeddings, depth)
        fused = self.fuse(rows, scores, depth, query_embeddings, self.index.store)
        targets = [self.targets[row] for row in prediction.label_ids]
        return {name: float(values.mean()) for name, values in evaluate_run(fused.rows, targets, self.ks).items()}
