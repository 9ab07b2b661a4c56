"""Haystack: a component in a pipeline, its file, and its filters."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("haystack", reason="needs the extra `haystack`")

from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder
from haystack.components.joiners import DocumentJoiner

from amer.integrations.haystack import AMERRetriever, written_filters
from tests.integrations.conftest import PARTS, QUESTION

RECENT = {"field": "meta.year", "operator": ">=", "value": 1994}
ENGLISH = {"field": "language", "operator": "in", "value": ["en"]}
BOTH = {"operator": "AND", "conditions": [RECENT, ENGLISH]}


def pipeline(retriever: AMERRetriever) -> Pipeline:
    """A prompt of what the retriever finds, after a joiner, which sorts documents by their score."""
    built = Pipeline()
    built.add_component("retriever", retriever)
    built.add_component("joiner", DocumentJoiner(sort_by_score=True))
    template = "{% for document in documents %}{{ document.content }} | {% endfor %}"
    built.add_component("prompt", PromptBuilder(template, required_variables=["documents"]))
    built.connect("retriever.documents", "joiner.documents")
    built.connect("joiner.documents", "prompt.documents")
    return built


def test_documents_say_how_they_were_found_and_have_descending_scores(searcher):
    documents = AMERRetriever(searcher=searcher, top_k=6).run(QUESTION)["documents"]
    (hits,) = searcher.search(QUESTION, k=6, attribute=True)
    assert [document.score for document in documents] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]
    first, hit = documents[0], hits[0]
    found = {"similarity": hit.score, "found_by": 0, "found_at": 0, "part": PARTS[0]}
    assert first == Document(hit.id, hit.text, meta={**hit.metadata, "title": hit.title, **found}, score=1.0)
    assert [document.meta["similarity"] for document in documents] == [hit.score for hit in hits]


def test_a_pipeline_keeps_the_order_comes_from_its_yaml_and_runs(folders, searcher):
    written = pipeline(AMERRetriever(*folders, top_k=5, filters=BOTH, opening={"device": "cpu"}))
    read = Pipeline.loads(written.dumps(), allowed_modules=[AMERRetriever.__module__])
    assert read.to_dict()["components"] == written.to_dict()["components"]
    (hits,) = searcher.search(QUESTION, k=3, filter="year < 1996")
    filters = {"field": "meta.year", "operator": "<", "value": 1996}
    answer = read.run({"retriever": {"query": QUESTION, "top_k": 3, "filters": filters}})
    assert answer["prompt"]["prompt"] == "".join(f"{hit.text} | " for hit in hits)


def test_a_component_round_trips(folders):
    retriever = AMERRetriever(*folders, top_k=5, filters=BOTH, num_query_vectors=2, fusion="max_score")
    again = AMERRetriever.from_dict(retriever.to_dict())
    assert again.to_dict() == retriever.to_dict()
    assert {document.meta["year"] for document in again.run(QUESTION)["documents"]} == {1994, 1996}


def test_the_event_loop_goes_on_while_it_searches(slow_searcher):
    built = pipeline(AMERRetriever(searcher=slow_searcher, top_k=2))

    async def ask() -> dict:
        asked = built.run_async({"retriever": {"query": QUESTION}}, include_outputs_from={"retriever"})
        return await slow_searcher.beside(asked)

    assert len(asyncio.run(ask())["retriever"]["documents"]) == 2


@pytest.mark.parametrize(
    ("filters", "written"),
    [
        (RECENT, "year >= 1994"),
        (BOTH, "(year >= 1994) and (language in ['en'])"),
        ({"operator": "NOT", "conditions": [RECENT, ENGLISH]}, "not ((year >= 1994) and (language in ['en']))"),
        (
            {"operator": "OR", "conditions": [BOTH, RECENT]},
            "((year >= 1994) and (language in ['en'])) or (year >= 1994)",
        ),
    ],
)
def test_filters_are_written_in_amers_words(searcher, filters, written):
    assert written_filters(filters) == written
    found = AMERRetriever(searcher=searcher, filters=filters).run(QUESTION)["documents"]
    assert [document.id for document in found] == [hit.id for hit in searcher.search(QUESTION, filter=written)[0]]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"field": "meta.year", "value": 3}, "lacks operator"),
        ({"operator": "==", "value": 3}, "a filter must have field, operator and value"),
        ({"field": "meta.year", "operator": "like", "value": 3}, "got 'like' for the field 'year'"),
        ({"field": "meta.year", "operator": "==", "value": None}, "year is compared with None"),
        ({"field": "meta.year == 1 or year", "operator": "==", "value": 1}, "must consist of letters"),
        ({"operator": "XOR", "conditions": [RECENT]}, "joined by and, or, not, got 'xor'"),
        ({"operator": "AND", "conditions": []}, "without conditions"),
    ],
)
def test_filters_beyond_amers_are_refused(searcher, filters, message):
    with pytest.raises(ValueError, match=message):
        AMERRetriever(searcher=searcher, filters=filters)


def test_what_it_cannot_be_made_of_is_refused(folders, searcher):
    for given in ({}, {"model": folders.model}, {"model": folders.model, "searcher": searcher}):
        with pytest.raises(ValueError, match="give either a model and a store, or an open searcher"):
            AMERRetriever(**given)
    with pytest.raises(ValueError, match="log in to the Hub"):
        AMERRetriever(*folders, opening={"token": "hf_secret"})
    with pytest.raises(ValueError, match="cannot be saved"):
        AMERRetriever(searcher=searcher).to_dict()
