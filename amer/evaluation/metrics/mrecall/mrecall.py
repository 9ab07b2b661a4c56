"""MRecall@k as a metric of the `evaluate` library. It imports nothing of AMER, since a Space has only this folder."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Recall and MRecall of ranked lists for queries with several right answers (targets). A cluster of documents covers each
target. A target is found if a document of its cluster is among the top k. Recall@k is the fraction of targets found.
MRecall@k (Min et al., 2021) is 1 if all m targets are found, or k of them if k < m; otherwise it is 0.
"""

_CITATION = """
@inproceedings{min-etal-2021-joint,
    title = "Joint Passage Ranking for Diverse Multi-Answer Retrieval",
    author = "Min, Sewon and Lee, Kenton and Chang, Ming-Wei and Toutanova, Kristina and Hajishirzi, Hannaneh",
    booktitle = "Proceedings of the 2021 Conference on Empirical Methods in Natural Language Processing",
    year = "2021",
}
"""

_INPUTS = """
Args:
    predictions: for each query, the ids of the retrieved documents, best first.
    references: for each query, its targets, each a list of the ids of the documents that cover it.
    k: cut-off, at most the length of the longest ranked list; 100 by default.
Returns:
    mrecall: mean MRecall@k over the queries, 0 to 1.
    recall: mean Recall@k over the queries, 0 to 1.
Example:
    >>> metric = evaluate.load("mrecall")
    >>> metric.compute(predictions=[["a", "x", "b"]], references=[[["a", "c"], ["b"]]], k=2)
    {'mrecall': 0.0, 'recall': 0.5}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class MRecall(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Recall@k and MRecall@k."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = {"predictions": datasets.Sequence(text), "references": datasets.Sequence(datasets.Sequence(text))}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self, predictions: list[list[str]], references: list[list[list[str]]], k: int = 100
    ) -> dict[str, float]:
        longest = max(map(len, predictions))
        if not 1 <= k <= longest:
            raise ValueError(f"k must lie in 1..{longest}, the length of the longest ranked list, got {k}")
        if not all(targets and all(targets) for targets in references):
            raise ValueError("every query needs at least one target, and every target at least one document id")
        counts = np.array([len(targets) for targets in references])
        top = [set(ranked[:k]) for ranked in predictions]
        pairs = zip(top, references, strict=True)
        found = np.array([sum(not ids.isdisjoint(cluster) for cluster in targets) for ids, targets in pairs])
        return {
            "mrecall": float((found >= np.minimum(counts, k)).mean()),
            "recall": float((found / counts).mean()),
        }
