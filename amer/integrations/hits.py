"""What every framework is told of a hit, beside the document's text."""

from __future__ import annotations

from typing import Any

from amer.search import Hit


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """The document's own metadata and title, and how it was found; JSON can hold it.

    Returns:
        the fields of the document, then `title`, `found_by` (the query vector that found it first, from 0), `found_at`
        (its rank there, from 0), and `part` where the model can say it: the words of the question that the document
        answers. These names win over fields of the document that have the same name.
    """
    metadata = {**hit.metadata, "title": hit.title, "found_by": hit.found_by, "found_at": hit.found_at}
    return {**metadata, "part": hit.part} if hit.part else metadata
