"""AMER in Haystack: a retriever for pipelines, which can be saved in a pipeline's YAML."""

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
    """Retrieves documents for a question, in the order of the fused list.

    retriever = AMERRetriever("org/amer-mini", "org/store", top_k=5)
    documents = retriever.run("compute the mean of an array and open a zip file")["documents"]

    Haystack sorts and joins documents by their score. So a document's `score` is the reciprocal of its rank in the
    fused list: 1, 1/2, 1/3, ... Its `meta` holds the fields of `amer.integrations.hits.hit_metadata`, and the score of
    AMER as `similarity`.

    Haystack loads a pipeline's file only if you tell it to trust this module:
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
        """Give a model and a store, which `warm_up` opens, or an open searcher.

        Args:
            model: A folder, or a name on the Hub.
            store: A folder, or a name on the Hub.
            index: See `Searcher.from_pretrained`.
            searcher: An open searcher instead of these three. A pipeline with such a retriever cannot be saved.
            top_k: Number of documents per question.
            filters: Conditions on the metadata, in Haystack's form.
            num_query_vectors: Number of query vectors m. Default: the model's own number.
            fusion: How to combine the m lists (see `Searcher.search`). Default: the fusion that the model was trained
                for.
            opening: Further arguments of `Searcher.from_pretrained`, such as `{"device": "cuda"}`. A token is refused,
                because the pipeline's file would show it: log in to the Hub instead.

        Raises:
            ValueError: Neither a model and a store nor a searcher is given, or both are, or `opening` holds a token,
                or AMER cannot express the filters.
        """
        if (model is None or store is None) if searcher is None else (model, store, index) != (None, None, None):
            raise ValueError("give either a model and a store, or an open searcher")
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
        """Open the model, the store and the index, unless they are open.

        Raises:
            OSError: The model, store or index is missing or damaged. The message names it.
            ValueError: The model, store and index do not belong together.
        """
        self._opened()

    def _opened(self) -> Searcher:
        with _opening:
            if self._searcher is None:
                model, store = cast(str, self.model), cast(str, self.store)  # `__init__` requires both
                self._searcher = Searcher.from_pretrained(model, store, self.index, **self.opening or {})
            return self._searcher

    def to_dict(self) -> dict[str, Any]:
        """Return the retriever as a dictionary for a pipeline's file.

        Raises:
            ValueError: The retriever was made from an open searcher.
        """
        if not self._named:
            raise ValueError("a retriever made from an open searcher cannot be saved: give a model and a store")
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
        """Make a retriever from the result of `to_dict`."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """Search.

        Args:
            query: The question.
            top_k: Number of documents. Default: the retriever's own number.
            filters: Replaces the retriever's own filters.

        Returns:
            `{"documents": ...}`, best first.

        Raises:
            ValueError: The question is empty, top_k < 1, or the filters do not fit the store.
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
        """Search as in `run`, in another thread."""
        return await asyncio.to_thread(self.run, query, top_k, filters)


def written_filters(filters: dict[str, Any]) -> str:
    """Translate Haystack's filters into the syntax of `amer.corpus.filters`.

    Raises:
        ValueError: The filter is invalid, AMER does not know an operator, or a value is null or a date.
    """
    if "field" in filters:
        if missing := {"operator", "value"} - filters.keys():
            raise ValueError(f"the filter {filters!r:.200} lacks {', '.join(sorted(missing))}: add what is missing")
        return comparison(str(filters["field"]).removeprefix("meta."), filters["operator"], filters["value"])
    if {"operator", "conditions"} - filters.keys():
        raise ValueError(
            f"a filter must have field, operator and value, or operator and conditions, got {filters!r:.200}"
        )
    conditions = [written_filters(condition) for condition in filters["conditions"]]
    if filters["operator"] == "NOT":  # not all of them
        return f"not ({joined('and', conditions)})"
    return joined(str(filters["operator"]).lower(), conditions)
