"""AMER in Haystack: a retriever for pipelines, which a pipeline's YAML can hold."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

from amer.extras import needs_extra
from amer.integrations.filters import comparison, joined
from amer.integrations.hits import hit_metadata
from amer.search import Searcher

with needs_extra("haystack", "AMERRetriever"):
    from haystack import Document, component, default_from_dict, default_to_dict

_opening = threading.Lock()


@component
class AMERRetriever:
    """Documents for a question, in the order of the fused list.

    retriever = AMERRetriever("org/amer-mini", "org/store", top_k=5)
    documents = retriever.run("compute the mean of an array and open a zip file")["documents"]

    Haystack sorts and joins documents by their score. A document's `score` therefore says its place in the fused list:
    1, 1/2, 1/3, ... Its meta are those of `amer.integrations.hits.hit_metadata`, and `similarity`.

    Haystack opens a pipeline's file only if it is told to trust this module:
    `Pipeline.loads(text, allowed_modules=["amer.integrations.haystack"])`.
    """

    def __init__(
        self,
        model: str | None = None,
        store: str | None = None,
        index: str | None = None,
        *,
        searcher: Searcher | None = None,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        num_query_vectors: int | None = None,
        fusion: str | None = None,
        opening: dict[str, Any] | None = None,
    ) -> None:
        """Name a model and a store, which `warm_up` opens, or give a searcher that is open.

        Args:
            model: a folder, or a name on the Hub.
            store: a folder, or a name on the Hub.
            index: see `Searcher.from_pretrained`.
            searcher: in place of these three; a pipeline with such a retriever cannot be written down.
            top_k: documents a question.
            filters: only documents whose metadata fulfil them, in Haystack's form.
            num_query_vectors: m; the model's own number by default.
            fusion: how m lists become one (see `Searcher.search`); the one the model was trained for by default.
            opening: further arguments of `Searcher.from_pretrained`, such as `{"device": "cuda"}`; no token, which the
                pipeline's file would show: log in to the Hub instead.

        Raises:
            ValueError: neither names nor a searcher, or both; a token; filters that AMER cannot express.
        """
        if (model is None or store is None) if searcher is None else (model, store, index) != (None, None, None):
            raise ValueError("give a model and a store, or a searcher that is open")
        if opening and "token" in opening:
            raise ValueError("opening holds a token, which the pipeline's file would show: log in to the Hub instead")
        self.model = model
        self.store = store
        self.index = index
        self.top_k = top_k
        self.filters = filters
        self.num_query_vectors = num_query_vectors
        self.fusion = fusion
        self.opening = opening
        self._searcher = searcher
        self._named = searcher is None
        if filters:
            written_filters(filters)

    def warm_up(self) -> None:
        """Open the model and the store, once.

        Raises:
            OSError: a model, store or index is not there, or is damaged; names it.
            ValueError: they do not belong together.
        """
        self._opened()

    def _opened(self) -> Searcher:
        with _opening:
            if self._searcher is None:
                model, store = cast(str, self.model), cast(str, self.store)  # `__init__` asks for both
                self._searcher = Searcher.from_pretrained(model, store, self.index, **self.opening or {})
            return self._searcher

    def to_dict(self) -> dict[str, Any]:
        """What a pipeline's file holds.

        Raises:
            ValueError: the retriever was made of a searcher.
        """
        if not self._named:
            raise ValueError("a retriever made of an open searcher cannot be written down: give a model and a store")
        return default_to_dict(
            self,
            model=self.model,
            store=self.store,
            index=self.index,
            top_k=self.top_k,
            filters=self.filters,
            num_query_vectors=self.num_query_vectors,
            fusion=self.fusion,
            opening=self.opening,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AMERRetriever:
        """A retriever from what `to_dict` gave."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Search.

        Args:
            query: the question.
            top_k: documents; the retriever's own number by default.
            filters: in place of the retriever's own.

        Returns:
            `{"documents": ...}`, best first.

        Raises:
            ValueError: an empty question, top_k < 1, or filters that do not fit the store.
        """
        filters = self.filters if filters is None else filters
        (hits,) = self._opened().search(
            query,
            self.top_k if top_k is None else top_k,
            self.num_query_vectors,
            self.fusion,
            filter=written_filters(filters) if filters else None,
            attribute=True,
        )
        return {
            "documents": [
                Document(hit.id, hit.text, meta={**hit_metadata(hit), "similarity": hit.score}, score=1 / place)
                for place, hit in enumerate(hits, start=1)
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in another thread."""
        return await asyncio.to_thread(self.run, query, top_k, filters)


def written_filters(filters: dict[str, Any]) -> str:
    """Haystack's filters in the words of `amer.corpus.filters`.

    Raises:
        ValueError: no such filter, an operator that AMER does not know, or a value that is null or a date.
    """
    if "field" in filters:
        if missing := {"operator", "value"} - filters.keys():
            raise ValueError(f"the filter {filters!r:.200} lacks {', '.join(sorted(missing))}")
        return comparison(str(filters["field"]).removeprefix("meta."), filters["operator"], filters["value"])
    if {"operator", "conditions"} - filters.keys():
        raise ValueError(f"a filter has field, operator and value, or operator and conditions, got {filters!r:.200}")
    conditions = [written_filters(condition) for condition in filters["conditions"]]
    if filters["operator"] == "NOT":  # not all of them
        return f"not ({joined('and', conditions)})"
    return joined(str(filters["operator"]).lower(), conditions)
