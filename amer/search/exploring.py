"""Show the steps of a search: each query vector's list, the list of the encoder alone, and a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from amer.search.attribution import VectorWords
from amer.search.fusion import Fused, FusionName
from amer.search.lists import search_lists
from amer.search.plane import plane
from amer.search.searcher import Hit, Searcher, hits_of

NEIGHBOURS = 240  # approximate number of documents on a map
Kind = Literal["query", "encoder", "hit", "neighbour"]


class MapPoint(NamedTuple):
    """A vector on the map.

    Attributes:
        kind: "query" (a query vector), "encoder" (the question embedded by the encoder alone), "hit" (a document in
            the fused list) or "neighbour" (another document).
        vector: Number of the query vector, or of the query vector that ranks the document highest. None for the
            encoder.
        x: From -1 to 1.
        y: From -1 to 1.
        id: ID of the document. Empty for the vectors of the question.
        title: Title of the document.
        text: Text of the document.
    """

    kind: Kind
    vector: int | None
    x: float
    y: float
    id: str = ""
    title: str = ""
    text: str = ""


class Exploration(NamedTuple):
    """The steps of one question's search.

    Attributes:
        hits: The fused list, as from `Searcher.search`.
        lists: The list of each query vector that the model emitted.
        parts: The words that each query vector stands for, as from `Searcher.parts`.
        encoder: The list that the document encoder alone finds with the whole question. None if no encoder is open.
        encoder_ranks: Rank of each fused hit in the encoder's list, from 0. None beyond `depth`.
        depth: Length of the encoder's list.
        map: The vectors of the question and the documents around them, on a plane.
    """

    hits: list[Hit]
    lists: list[list[Hit]]
    parts: list[VectorWords]
    encoder: list[Hit] | None
    encoder_ranks: list[int | None]
    depth: int
    map: list[MapPoint]


class _Lists(NamedTuple):
    """Vectors of one question `(m, dim)`, the encoder's last if there is one, and their lists `(m, depth)`."""

    vectors: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    has_encoder: bool

    @property
    def of_model(self) -> int:
        """Number of the model's query vectors."""
        return len(self.vectors) - self.has_encoder


def explore(
    searcher: Searcher,
    questions: Sequence[str],
    k: int = 10,
    num_query_vectors: int | Literal["auto"] | None = None,
    fusion: FusionName | None = None,
    filter: str | None = None,
) -> list[Exploration]:
    """Search and keep the intermediate results. Arguments as in `Searcher.search`.

    Raises:
        ValueError: As `Searcher.search`.
    """
    fuse = searcher.fusion(fusion)
    query_embeddings = searcher.encode(list(questions), num_query_vectors)
    alone = encoder_vectors(searcher, questions)
    vectors = query_embeddings if alone is None else np.concatenate([query_embeddings, alone[:, None]], axis=1)
    depth = min(max(k, -(-NEIGHBOURS // vectors.shape[1])), len(searcher.store))
    rows, scores = search_lists(searcher.index, vectors, depth, filter)
    m = query_embeddings.shape[1]
    fused = fuse(rows[:, :m, :k], scores[:, :m, :k], k, query_embeddings, searcher.store)
    found = []
    for place, question in enumerate(questions):
        kept = vectors[place].any(axis=-1)  # zeros stand for no vector
        lists = _Lists(vectors[place][kept], rows[place][kept], scores[place][kept], alone is not None)
        own = Fused(*(field[place : place + 1] for field in fused))
        found.append(_exploration(searcher, own, lists, k, searcher.parts(question, num_query_vectors)))
    return found


def encoder_vectors(searcher: Searcher, questions: Sequence[str]) -> np.ndarray | None:
    """Embed the questions with the document encoder alone: `(q, dim)`, or None if no encoder is open."""
    if searcher.encoder is not None:
        return searcher.encoder.encode_queries(list(questions))
    if searcher.model.config.token_vectors:
        vectors: torch.Tensor = searcher.model.document_encoder.encode(questions)
        return vectors.numpy()
    return None


def _exploration(searcher: Searcher, fused: Fused, lists: _Lists, k: int, parts: list[VectorWords]) -> Exploration:
    depth = lists.rows.shape[1]
    nearest = _nearest(lists.rows)
    documents = dict(zip(nearest, searcher.store.documents(list(nearest)), strict=True))  # includes those of `fused`
    shown = hits_of(_as_fused(lists, min(k, depth)), documents)
    ranks: list[int | None] = []
    if lists.has_encoder:
        places = {row: rank for rank, row in enumerate(lists.rows[-1].tolist())}
        ranks = [places.get(row) for row in fused.rows[0].tolist() if row >= 0]
    return Exploration(
        hits=hits_of(fused, documents)[0],
        lists=shown[: lists.of_model],
        parts=parts,
        encoder=shown[-1] if lists.has_encoder else None,
        encoder_ranks=ranks,
        depth=depth,
        map=_map(searcher, {*fused.rows[0].tolist()}, lists, nearest, documents),
    )


def _nearest(rows: np.ndarray) -> dict[int, int]:
    """Map each row in the lists `(m, depth)` to the list that ranks it highest."""
    nearest: dict[int, int] = {}
    for rank in rows.T.tolist():
        for number, row in enumerate(rank):
            if row >= 0:
                nearest.setdefault(row, number)
    return nearest


def _as_fused(lists: _Lists, k: int) -> Fused:
    """Return the first k entries of each list in the form of a fused list."""
    rows = lists.rows[:, :k]
    found = np.indices(rows.shape)
    return Fused(rows, lists.scores[:, :k], found_by=found[0], found_at=found[1])


def _map(
    searcher: Searcher,
    hits: set[int],
    lists: _Lists,
    nearest: dict[int, int],
    documents: dict[int, dict[str, Any]],
) -> list[MapPoint]:
    """Return the map: the question's vectors, then the documents of all lists without repeats."""
    count = len(lists.vectors)
    places = plane(np.concatenate([lists.vectors, searcher.store.vectors(list(nearest))])).tolist()
    numbers = [*range(lists.of_model), None]  # None is the encoder's list
    points = [MapPoint("encoder" if numbers[at] is None else "query", numbers[at], *places[at]) for at in range(count)]
    for (row, number), (x, y) in zip(nearest.items(), places[count:], strict=True):
        kind: Kind = "hit" if row in hits else "neighbour"
        document = documents[row]
        points.append(MapPoint(kind, numbers[number], x, y, document["id"], document["title"], document["text"]))
    return points
