"""Everything that a search passes, for a person to look at: each list by itself, the encoder alone, a map."""

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

NEIGHBOURS = 240  # documents of a map, about
Kind = Literal["query", "encoder", "hit", "neighbour"]


class MapPoint(NamedTuple):
    """A vector on the map.

    Attributes:
        kind: a query vector, the question as the encoder alone embeds it, a document that was found, or another.
        vector: the query vector itself, or the one in whose list the document stands highest; None for the encoder's.
        x: from -1 to 1.
        y: from -1 to 1.
        id: of the document; empty for the vectors of the question.
        title: of the document.
        text: of the document.
    """

    kind: Kind
    vector: int | None
    x: float
    y: float
    id: str = ""
    title: str = ""
    text: str = ""


class Exploration(NamedTuple):
    """What became of one question.

    Attributes:
        hits: the fused list, as `Searcher.search` gives it.
        lists: the list of each query vector that the model emitted.
        parts: the words that each of them stands for, as `Searcher.parts` gives them.
        encoder: the list of the document encoder alone, with the whole question; None where no encoder is open.
        encoder_ranks: of each fused hit its rank in the encoder's list, from 0; None beyond `depth`.
        depth: how far the encoder's list was searched.
        map: the vectors of the question and the documents around them on a plane.
    """

    hits: list[Hit]
    lists: list[list[Hit]]
    parts: list[VectorWords]
    encoder: list[Hit] | None
    encoder_ranks: list[int | None]
    depth: int
    map: list[MapPoint]


class _Lists(NamedTuple):
    """Vectors of one question `(m, dim)`, the encoder's the last if there is one, and what they found `(m, depth)`."""

    vectors: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    has_encoder: bool

    @property
    def of_model(self) -> int:
        """Query vectors of the model."""
        return len(self.vectors) - self.has_encoder


def explore(
    searcher: Searcher,
    questions: Sequence[str],
    k: int = 10,
    num_query_vectors: int | Literal["auto"] | None = None,
    fusion: FusionName | None = None,
    filter: str | None = None,
) -> list[Exploration]:
    """Search, and keep what is on the way; arguments as in `Searcher.search`.

    Raises:
        ValueError: as `Searcher.search`.
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
    """The questions as the document encoder alone embeds them, `(q, dim)`; None where no encoder is open."""
    if searcher.encoder is not None:
        return searcher.encoder.encode_queries(list(questions))
    if getattr(searcher.model.config, "token_vectors", False):
        vectors: torch.Tensor = searcher.model.document_encoder.encode(questions)
        return vectors.numpy()
    return None


def _exploration(searcher: Searcher, fused: Fused, lists: _Lists, k: int, parts: list[VectorWords]) -> Exploration:
    depth = lists.rows.shape[1]
    nearest = _nearest(lists.rows)
    documents = dict(zip(nearest, searcher.store.documents(list(nearest)), strict=True))  # those of `fused` among them
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
    """Of each row of the lists `(m, depth)` the list where it stands highest."""
    nearest: dict[int, int] = {}
    for rank in rows.T.tolist():
        for number, row in enumerate(rank):
            if row >= 0:
                nearest.setdefault(row, number)
    return nearest


def _as_fused(lists: _Lists, k: int) -> Fused:
    """Each list as if it were that of a question: k places of it."""
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
    """The question's vectors, then the documents of all lists, each once."""
    count = len(lists.vectors)
    places = plane(np.concatenate([lists.vectors, searcher.store.vectors(list(nearest))])).tolist()
    numbers = [*range(lists.of_model), None]  # None is the encoder's list
    points = [MapPoint("encoder" if numbers[at] is None else "query", numbers[at], *places[at]) for at in range(count)]
    for (row, number), (x, y) in zip(nearest.items(), places[count:], strict=True):
        kind: Kind = "hit" if row in hits else "neighbour"
        document = documents[row]
        points.append(MapPoint(kind, numbers[number], x, y, document["id"], document["title"], document["text"]))
    return points
