"""From dataset rows to a batch: shuffled targets, one document of each cluster, random negatives of the corpus."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from amer.retrieval.store import DocumentStore
from modeling_amer import AMERModel, tokenize_queries


class AMERCollator:
    """Batches the rows of a linked `RetrievalDataset`, whatever their numbers of targets.

    Each row's targets are shuffled (they have no order) and one document is drawn from each cluster; every document
    enters the candidates once. All draws follow from the seed and the rows of the batch, so that a resumed run, a
    data-loading worker and a second evaluation see the same batch.

    The batch: what the model reads (`input_ids`, `attention_mask`, `prefix_ids` and/or `query_vectors`), and
        - `candidates (n, dim)`: the documents of the batch, then the random negatives;
        - `target_index (batch, m)`, `target_mask (batch, m)`: the targets as rows of `candidates`, real ones first;
        - `ignored (pairs, 2)`: (row, candidate) where the candidate answers the row without being its target;
        - `query_index (batch,)`: the rows of the dataset.

    Args:
        model: says what a question looks like: text, a vector, or both.
        store: the documents.
        num_random_negatives: documents drawn from the whole store for each batch, shared by its rows.
        max_targets: at most so many targets a row, drawn anew each time; 1 is the Single-Query baseline (paper §5.2).
        seed: of all draws.

    Raises:
        ValueError: a store of another encoder or size than the model's, or smaller than the negatives asked for.
    """

    def __init__(
        self,
        model: AMERModel,
        store: DocumentStore,
        num_random_negatives: int,
        max_targets: int | None = None,
        seed: int = 0,
    ) -> None:
        config = model.config
        if config.document_dim != store.dim:
            raise ValueError(
                f"The model emits vectors of {config.document_dim}, the store holds vectors of {store.dim}."
            )
        if config.document_encoder is not None:
            store.check_encoder(config.document_encoder)
        if not 0 <= num_random_negatives <= len(store):
            raise ValueError(
                f"num_random_negatives must lie in 0 ... {len(store)} (the store), got {num_random_negatives}."
            )
        if max_targets is not None and max_targets < 1:
            raise ValueError(f"max_targets must be at least 1 or None, got {max_targets}.")
        self.tokenize = None
        if config.reads_text:  # not the model's own method, which would carry the model into data-loading workers
            self.tokenize = partial(tokenize_queries, model.tokenizer, config.prompt_template)
        self.reads_vectors = config.reads_vectors
        self.store = store
        self.num_random_negatives = num_random_negatives
        self.max_targets = max_targets
        self.seed = seed

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, *(example["index"] for example in examples)])
        targets = [self._draw_targets(example, rng) for example in examples]
        documents = list(dict.fromkeys(row for row_targets in targets for row in row_targets))
        positives = [{row for cluster in example["target_rows"] for row in cluster} for example in examples]
        negatives = self._draw_negatives(set().union(*positives), rng)
        batch = self._read_questions(examples)
        batch["candidates"] = torch.from_numpy(
            self.store.vectors(np.concatenate([documents, negatives]).astype(np.int64))
        )
        batch["query_index"] = torch.tensor([example["index"] for example in examples])
        place = {row: position for position, row in enumerate(documents)}
        batch["target_index"] = torch.zeros(len(examples), max(map(len, targets)), dtype=torch.long)
        batch["target_mask"] = torch.zeros_like(batch["target_index"], dtype=torch.bool)
        ignored = []
        for i, (chosen, known) in enumerate(zip(targets, positives, strict=True)):
            batch["target_index"][i, : len(chosen)] = torch.tensor([place[row] for row in chosen])
            batch["target_mask"][i, : len(chosen)] = True
            ignored += [(i, place[row]) for row in sorted(known.difference(chosen)) if row in place]
        batch["ignored"] = torch.tensor(ignored, dtype=torch.long).reshape(-1, 2)
        return batch

    def _draw_targets(self, example: dict[str, Any], rng: np.random.Generator) -> list[int]:
        clusters = example["target_rows"]
        order = rng.permutation(len(clusters))[: self.max_targets]
        drawn = (clusters[i][rng.integers(len(clusters[i]))] for i in order)
        return list(dict.fromkeys(drawn))  # one document may answer for two clusters

    def _draw_negatives(self, positives: set[int], rng: np.random.Generator) -> list[int]:
        drawn = rng.choice(len(self.store), self.num_random_negatives, replace=False, shuffle=False)
        return drawn[~np.isin(drawn, list(positives))].tolist()

    def _read_questions(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = {}
        if self.tokenize is not None:
            batch.update(self.tokenize([example["query"] for example in examples]))
        if self.reads_vectors:
            if "query_vector" not in examples[0]:
                raise ValueError("The model reads query vectors and the dataset holds none; see with_query_vectors.")
            batch["query_vectors"] = torch.from_numpy(np.stack([example["query_vector"] for example in examples]))
        return batch
