"""A tiny model that splits questions and a store that has an answer to each part, saved as a user has them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pytest

from amer.corpus import DocumentEncoder, write_store
from amer.search import Hit, Searcher
from tests.conftest import build_splitting

QUESTION, PARTS = "river; bank, and spring", ["river", "bank", "spring"]
IN_THE_DOCS = "compute the mean of an array and open a zip file"
SPANS = {QUESTION: [[0, 5], [7, 11], [17, 23]], "bank": [[0, 4]], IN_THE_DOCS: [[0, 28], [33, 48]]}
TEXTS = ["river", "a long river", "bank", "a bank lends money", "spring", "a coil of metal", "water"]
Found = TypeVar("Found")


class Folders(NamedTuple):
    """Where a model and its store lie."""

    model: str
    store: str


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def folders(tiny_encoder, tmp_path_factory) -> Folders:
    """The model's vector of a part is the encoder's, so that each part finds the document that says the same."""
    folder = tmp_path_factory.mktemp("frameworks")
    encoder = DocumentEncoder(tiny_encoder, device="cpu")
    model = build_splitting(tiny_encoder, SPANS)
    for weight in (*model.output_projection.parameters(), model.token_anchor.query.weight):
        weight.data.zero_()
    model.config.context_weight = 0.0
    model.save_pretrained(folder / "model")
    rows = range(len(TEXTS))
    documents = pa.table(
        {
            "id": [f"d{row}" for row in rows],
            "title": [f"title {row}" for row in rows],
            "text": TEXTS,
            "year": [1990 + row for row in rows],
            "language": [("en", "de")[row % 2] for row in rows],
            "url": [f"https://example.org/{row}" for row in rows],
        }
    )
    write_store(folder / "store", documents, encoder.encode_documents(documents), encoder.identity, "float32")
    return Folders(str(folder / "model"), str(folder / "store"))


@pytest.fixture(scope="session")
def searcher(folders) -> Searcher:
    return Searcher.from_pretrained(*folders, device="cpu")


class SlowSearcher(Searcher):
    """Answers once the event loop has gone round while it waited."""

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(searcher.model, searcher.index, searcher.encoder)
        self.turned = threading.Event()

    def search(self, *arguments: Any, **options: Any) -> list[list[Hit]]:
        if not self.turned.wait(20):
            raise TimeoutError("the search blocked the event loop")
        return super().search(*arguments, **options)

    async def beside(self, asked: Awaitable[Found]) -> Found:
        """Wait for an answer that only comes if the event loop runs on."""
        asking = asyncio.ensure_future(asked)
        await asyncio.sleep(0.01)
        self.turned.set()
        return await asking


@pytest.fixture
def slow_searcher(searcher) -> SlowSearcher:
    return SlowSearcher(searcher)
