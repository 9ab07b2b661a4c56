"""LangChain: its own tests of retrievers, and what those do not ask."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="needs the extra `langchain`")
standard = pytest.importorskip("langchain_tests.integration_tests", reason="needs the extra `dev`")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.output_parsers import StrOutputParser  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402

from amer.integrations.langchain import AMERRetriever  # noqa: E402
from tests.integrations.conftest import PARTS, QUESTION  # noqa: E402


@pytest.mark.anyio
class TestStandard(standard.RetrieversIntegrationTests):
    """The tests of `langchain-tests`."""

    @pytest.fixture(autouse=True)
    def _searcher(self, searcher):
        self.searcher = searcher

    @property
    def retriever_constructor(self) -> type[AMERRetriever]:
        return AMERRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"searcher": self.searcher, "k": 4}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION


def test_folders_give_documents_with_how_they_were_found(folders, searcher):
    retriever = AMERRetriever.from_pretrained(*folders, k=6, device="cpu")
    (hits,) = searcher.search(QUESTION, k=6, attribute=True)
    documents = retriever.invoke(QUESTION)
    assert [document.id for document in documents] == [hit.id for hit in hits]
    first, hit = documents[0], hits[0]
    assert first == Document(
        id=hit.id,
        page_content=hit.text,
        metadata={
            **hit.metadata, "title": hit.title, "score": hit.score, "found_by": 0, "found_at": 0, "part": PARTS[0],
        },
    )  # fmt: skip
    assert {document.metadata["part"] for document in documents} == set(PARTS)


def test_a_filter_stands_until_a_call_has_its_own(searcher):
    retriever = AMERRetriever(searcher=searcher, k=3, filter="year >= 1994")
    assert {document.metadata["year"] for document in retriever.invoke(QUESTION)} == {1994, 1995, 1996}
    found = retriever.invoke(QUESTION, k=2, filter='language == "de" and year < 1994')
    assert {document.metadata["year"] for document in found} == {1991, 1993}


def test_vectors_and_fusion_reach_the_searcher(searcher):
    retriever = AMERRetriever(searcher=searcher, k=5, num_query_vectors=2, fusion="max_score")
    (hits,) = searcher.search(QUESTION, 5, 2, "max_score")
    assert [document.id for document in retriever.invoke(QUESTION)] == [hit.id for hit in hits]


def test_the_event_loop_goes_on_while_it_searches(slow_searcher):
    retriever = AMERRetriever(searcher=slow_searcher, k=2)

    async def ask() -> list[list[Document]]:
        return await slow_searcher.beside(asyncio.gather(retriever.ainvoke(QUESTION, k=1), retriever.ainvoke("bank")))

    assert [len(found) for found in asyncio.run(ask())] == [1, 2]


def test_a_chain_reads_it_for_many_questions_at_once(searcher):
    joined = RunnableLambda(lambda documents: " | ".join(document.page_content for document in documents))
    chain = AMERRetriever(searcher=searcher, k=2) | joined | StrOutputParser()
    expected = [" | ".join(hit.text for hit in hits) for hits in searcher.search([QUESTION, "bank"], k=2)]
    assert chain.batch([QUESTION, "bank"]) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "greater than or equal to 1"), ({"searcher": "a folder"}, "instance of Searcher")],
)
def test_what_it_cannot_be_made_of_is_refused(searcher, options, message):
    with pytest.raises(ValueError, match=message):
        AMERRetriever(**{"searcher": searcher, **options})


def test_a_bad_filter_is_refused_in_the_searchers_words(searcher):
    with pytest.raises(ValueError, match="no field 'colour'"):
        AMERRetriever(searcher=searcher).invoke(QUESTION, filter="colour == 'red'")
