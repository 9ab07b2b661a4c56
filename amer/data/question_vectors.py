"""The document encoder's vectors of the questions. An anchored model reads them together with the text."""

from __future__ import annotations

from collections.abc import Mapping

from amer.corpus.encoder import DocumentEncoder
from amer.data.dataset import RetrievalDataset


def add_question_vectors(
    splits: Mapping[str, RetrievalDataset], encoder: DocumentEncoder, show_progress_bar: bool = False
) -> dict[str, RetrievalDataset]:
    """Return the splits with `input_vectors (queries, dim)`; a split that has vectors is not changed.

    Args:
        splits: Name -> split. A split without vectors must have texts.
        encoder: The encoder of the store that the model is trained for; it puts its query prompt before each question.
        show_progress_bar: Show how many questions are encoded.
    """
    added = {}
    for name, split in splits.items():
        if split.input_vectors is None and split.queries is not None:  # every split has at least one
            split = split.with_input_vectors(
                encoder.encode_queries(split.queries, show_progress_bar=show_progress_bar)
            )
        added[name] = split
    return added
