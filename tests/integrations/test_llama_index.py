"""LlamaIndex: nodes from the searcher, and a query engine that reads them."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("llama_index.core", reason="needs the extra `llama-index`")

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from amer.integrations.llama_index import AMERRetriever, written_filters
from tests.integrations.conftest import PARTS, QUESTION

RECENT = MetadataFilter(key="year", operator=FilterOperator.GTE, value=1994)
FRENCH = MetadataFilter(key="language", operator=FilterOperator.NIN, value=["en", "de"])


def test_folders_give_nodes_in_the_order_of_the_fused_list(folders, searcher):
    nodes = AMERRetriever.from_pretrained(*folders, similarity_top_k=6, device="cpu").retrieve(QUESTION)
    (hits,) = searcher.search(QUESTION, k=6, attribute=True)
    assert [(found.node_id, found.score, found.text) for found in nodes] == [(h.id, h.score, h.text) for h in hits]
    assert {found.metadata["part"] for found in nodes} == set(PARTS)
    assert [found.metadata["found_at"] for found in nodes] == [hit.found_at for hit in hits]
    shown = nodes[0].node.get_content(MetadataMode.LLM)
    assert "title: title 0" in shown and "part: river" in shown and "found_by" not in shown


def test_a_query_engine_reads_the_nodes(searcher):
    engine = RetrieverQueryEngine.from_args(AMERRetriever(searcher, 3), llm=MockLLM())
    response = engine.query(QUESTION)
    (hits,) = searcher.search(QUESTION, k=3)
    assert [found.node_id for found in response.source_nodes] == [hit.id for hit in hits]
    assert all(hit.text in response.response for hit in hits) and QUESTION in response.response  # it echoes the prompt


def test_the_event_loop_goes_on_while_it_searches(slow_searcher):
    retriever = AMERRetriever(slow_searcher, 2)

    async def ask() -> list:
        return await slow_searcher.beside(retriever.aretrieve(QUESTION))

    assert len(asyncio.run(ask())) == 2


def test_filters_vectors_and_fusion_reach_the_searcher(searcher):
    retriever = AMERRetriever(searcher, 5, MetadataFilters(filters=[RECENT]), 2, "max_score")
    (hits,) = searcher.search(QUESTION, 5, 2, "max_score", filter="year >= 1994")
    assert [found.node_id for found in retriever.retrieve(QUESTION)] == [hit.id for hit in hits]


@pytest.mark.parametrize(
    ("filters", "written"),
    [
        (MetadataFilters(filters=[RECENT]), "(year >= 1994)"),
        (
            MetadataFilters(filters=[RECENT, FRENCH], condition="or"),
            "(year >= 1994) or (language not in ['en', 'de'])",
        ),
        (
            MetadataFilters(filters=[RECENT, FRENCH], condition=FilterCondition.NOT),
            "not ((year >= 1994) or (language not in ['en', 'de']))",
        ),
        (
            MetadataFilters(filters=[RECENT, MetadataFilters(filters=[FRENCH, RECENT], condition="or")]),
            "(year >= 1994) and ((language not in ['en', 'de']) or (year >= 1994))",
        ),
    ],
)
def test_filters_are_written_in_amers_words(filters, written):
    assert written_filters(filters) == written


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (
            MetadataFilter(key="year", operator=FilterOperator.IS_EMPTY, value=None),
            "got 'is_empty' for the field 'year'",
        ),
        (MetadataFilter(key="year", value=None), "year is compared with None"),
        (MetadataFilter(key="year or stub", value=3), "got 'year or stub'"),
    ],
)
def test_filters_beyond_amers_are_refused(searcher, filter, message):
    with pytest.raises(ValueError, match=message):
        AMERRetriever(searcher, filters=MetadataFilters(filters=[filter]))
