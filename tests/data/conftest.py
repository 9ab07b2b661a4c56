"""The invented Wikipedia of the fixtures, as a corpus with its BM25 index."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from amer.baselines.bm25 import BM25
from amer.corpus import open_documents
from amer.data import build_wikipedia

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Files in the published formats; see their README."""
    return FIXTURES


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> pa.Table:
    path = tmp_path_factory.mktemp("wikipedia")
    build_wikipedia(path, FIXTURES / "chunked_wikipedia", show_progress_bar=False)
    return open_documents(path / "documents")


@pytest.fixture(scope="session")
def bm25(corpus, tmp_path_factory) -> BM25:
    return BM25.build(corpus, tmp_path_factory.mktemp("bm25") / "index")
