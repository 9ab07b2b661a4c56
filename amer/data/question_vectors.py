"""The document encoder's own vectors of the questions, which an anchored model reads beside their text."""

from __future__ import annotations

from collections.abc import Mapping

from amer.corpus.encoder import DocumentEncoder
from amer.data.dataset import RetrievalDataset


def add_question_vectors(
    splits: Mapping[str, RetrievalDataset], encoder: DocumentEncoder, show_progress_bar: bool = False
) -> dict[str, RetrievalDataset]:
    """The splits with `input_vectors (queries, dim)`; a split that has them already stays as it is.

    Args:
        splits: name -> split, whose questions are texts where vectors are lacking.
        encoder: of the store that the model is trained for; puts its query prompt before every question.
        show_progress_bar: show how many questions are encoded.
    """
    added = {}
    for name, split in splits.items():
        if split.input_vectors is None and split.queries is not None:  # a split has one of them at least
            split = split.with_input_vectors(
                encoder.encode_queries(split.queries, show_progress_bar=show_progress_bar)
            )
        added[name] = split
    return added
