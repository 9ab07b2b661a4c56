"""AMER in LlamaIndex: a retriever for query engines, chat engines and agents."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from amer.extras import needs_extra
from amer.integrations.filters import comparison, joined
from amer.integrations.hits import hit_metadata
from amer.search import Hit, Searcher

with needs_extra("llama-index", "AMERRetriever"):
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilters

NOT_FOR_LLMS = ["found_by", "found_at"]  # numbers that are useless in a prompt


class AMERRetriever(BaseRetriever):
    """Retrieves nodes for a question, in the order of the fused list. A node's score is its similarity.

    retriever = AMERRetriever.from_pretrained("org/amer-mini", "org/store", similarity_top_k=5)
    nodes = retriever.retrieve("compute the mean of an array and open a zip file")

    A node's metadata are those of `amer.integrations.hits.hit_metadata`.
    """

    def __init__(
        self,
        searcher: Searcher,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        num_query_vectors: int | None = None,
        fusion: str | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        """Make a retriever from an open searcher.

        Args:
            searcher: The searcher that finds the documents.
            similarity_top_k: Number of documents per question.
            filters: Conditions on the metadata.
            num_query_vectors: Number of query vectors m. Default: the model's own number.
            fusion: How to combine the m lists (see `Searcher.search`). Default: the fusion that the model was trained
                for.
            callback_manager: As in LlamaIndex.
            verbose: As in LlamaIndex.

        Raises:
            ValueError: AMER cannot express the filters.
        """
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self.searcher = searcher
        self.similarity_top_k = similarity_top_k
        self.num_query_vectors = num_query_vectors
        self.fusion = fusion
        self._filter = None if filters is None else written_filters(filters)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        store: str | os.PathLike[str],
        index: str | os.PathLike[str] | None = None,
        *,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
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
        return cls(searcher, similarity_top_k, filters, num_query_vectors, fusion)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        (hits,) = self.searcher.search(
            query_bundle.query_str,
            self.similarity_top_k,
            self.num_query_vectors,
            self.fusion,
            filter=self._filter,
            attribute=True,
        )
        return [NodeWithScore(node=_node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def written_filters(filters: MetadataFilters) -> str:
    """Translate LlamaIndex's filters into the syntax of `amer.corpus.filters`.

    Raises:
        ValueError: An operator is not a comparison, `in` or `nin`, there is no condition, or a value is null.
    """
    conditions = []
    for one in filters.filters:
        if isinstance(one, MetadataFilters):
            conditions.append(written_filters(one))
        else:
            operator = "not in" if one.operator is FilterOperator.NIN else one.operator.value
            conditions.append(comparison(one.key, operator, one.value))
    if filters.condition is FilterCondition.NOT:  # none of them
        return f"not ({joined('or', conditions)})"
    return joined((filters.condition or FilterCondition.AND).value, conditions)


def _node(hit: Hit) -> TextNode:
    return TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=hit_metadata(hit),
        excluded_llm_metadata_keys=NOT_FOR_LLMS,
        excluded_embed_metadata_keys=NOT_FOR_LLMS,
    )
