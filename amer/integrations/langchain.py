"""AMER in LangChain: a retriever for chains, agents and `create_retriever_tool`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from pydantic import Field

from amer.extras import needs_extra
from amer.integrations.hits import hit_metadata
from amer.search import Searcher

with needs_extra("langchain", "AMERRetriever"):
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever


class AMERRetriever(BaseRetriever):
    """Retrieves documents for a question, in the order of the fused list. `invoke` also takes `k` and `filter`.

    retriever = AMERRetriever.from_pretrained("org/amer-mini", "org/store", k=5)
    documents = retriever.invoke("compute the mean of an array and open a zip file")

    A document's metadata are those of `amer.integrations.hits.hit_metadata`, and `score`, the similarity.

    Attributes:
        searcher: The searcher that finds the documents.
        k: Number of documents per question.
        filter: Condition on the metadata, such as `year >= 1990` (see `amer.corpus.filters`).
        num_query_vectors: Number of query vectors m. Default: the model's own number.
        fusion: How to combine the m lists (see `Searcher.search`). Default: the fusion that the model was trained for.
    """

    searcher: Searcher = Field(exclude=True, repr=False)
    k: int = Field(10, ge=1)
    filter: str | None = None
    num_query_vectors: int | None = None
    fusion: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        store: str | os.PathLike[str],
        index: str | os.PathLike[str] | None = None,
        *,
        k: int = 10,
        filter: str | None = None,
        num_query_vectors: int | None = None,
        fusion: str | None = None,
        **opening: Any,
    ) -> AMERRetriever:
        """Open a model, a store and an index. See `Searcher.from_pretrained`, which also gets `opening`.

        Raises:
            OSError: The model, store or index is missing or damaged. The message names it.
            ValueError: The model, store and index do not belong together.
        """
        searcher = Searcher.from_pretrained(model, store, index, **opening)
        return cls(searcher=searcher, k=k, filter=filter, num_query_vectors=num_query_vectors, fusion=fusion)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: str | None = None,
    ) -> list[Document]:
        return self._documents(query, k, filter)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: str | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(self._documents, query, k, filter)

    def _documents(self, query: str, k: int | None, filter: str | None) -> list[Document]:
        (hits,) = self.searcher.search(
            query,
            self.k if k is None else k,
            self.num_query_vectors,
            self.fusion,
            filter=self.filter if filter is None else filter,
            attribute=True,
        )
        return [
            Document(id=hit.id, page_content=hit.text, metadata={**hit_metadata(hit), "score": hit.score})
            for hit in hits
        ]
