"""The metadata of a hit in all frameworks."""

from __future__ import annotations

from typing import Any

from amer.search import Hit


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """Return the metadata and the title of a document, and how it was found. The result can be saved as JSON.

    Returns:
        The document's own fields, then `title`, `found_by` (the query vector that found it first, from 0), `found_at`
        (its rank in that vector's list, from 0) and, if the model can tell, `part`: the words of the question that the
        document answers. These names override fields of the document with the same names.
    """
    metadata = {**hit.metadata, "title": hit.title, "found_by": hit.found_by, "found_at": hit.found_at}
    return {**metadata, "part": hit.part} if hit.part else metadata
