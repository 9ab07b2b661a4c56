"""Encoding a corpus from the command line: prompts, what must be trusted, another process at work, Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import amer.corpus
from amer.corpus import DocumentEncoder, DocumentStore
from amer.corpus.encoding import CorpusEncoding
from amer.corpus.known_encoders import KNOWN_ENCODERS, KnownEncoder
from amer.locks import try_lock
from tests.commands.running import amer as run_command
from tests.conftest import DIM, save_tiny_encoder, tiny_tokenizer

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny encoder and a corpus of 20 texts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    folder = tmp_path_factory.mktemp("encode")
    torch.manual_seed(0)
    embedding = StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=DIM)
    SentenceTransformer(modules=[embedding], device="cpu").save(str(folder / "encoder"))
    texts = [f"text {chr(97 + number)} {'y' * number}" for number in range(20)]
    pq.write_table(pa.table({"id": texts, "title": [""] * 20, "text": texts}), folder / "documents.parquet")
    return folder


def run(folder: Path, output: Path, *arguments: str, encoder: str | None = None) -> None:
    where = ["--documents", f"{folder}/documents.parquet", "--encoder", encoder or f"{folder}/encoder"]
    run_command("corpus", "encode", *where, "--output", output, "--shard-size", 6, "--device", "cpu", *arguments)


def test_a_corpus_becomes_a_store_and_the_same_command_opens_it(folder, tmp_path, capsys):
    for _ in range(2):
        run(folder, tmp_path / "store", "--query-prompt", "q: ", "--document-prompt", "d: ", "--dtype", "float32")
        assert f"store: 20 documents, {DIM} values each, float32" in " ".join(capsys.readouterr().out.split())
    store = DocumentStore.open(tmp_path / "store")
    store.verify()
    assert store.encoder == {
        "name": f"{folder}/encoder", "revision": None, "document_prompt": "d: ", "query_prompt": "q: "
    }  # fmt: skip


def test_the_precision_that_the_encoder_computes_in_is_recorded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("amer.machine.native_dtype", {"cpu": "bfloat16"}.__getitem__)
    encoder = save_tiny_encoder(tmp_path / "encoder")
    for name, arguments in {"auto": [], "float32": ["--encoder-dtype", "float32"]}.items():
        run(folder, tmp_path / name, *arguments, encoder=encoder)
    auto, exact = (DocumentStore.open(tmp_path / name) for name in ("auto", "float32"))
    assert auto.encoder == {**exact.encoder, "dtype": "bfloat16"} and "dtype" not in exact.encoder
    np.testing.assert_allclose(auto.vectors(range(20)), exact.vectors(range(20)), atol=0.05)
    assert not np.array_equal(auto.vectors(range(20)), exact.vectors(range(20)))
    with pytest.raises(ValueError, match="dtype"):
        run(folder, tmp_path / "float32", encoder=encoder)


def test_a_known_encoder_gets_its_prompt_and_it_is_said(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(KNOWN_ENCODERS, f"{folder}/encoder", KnownEncoder("ask: "))
    run(folder, tmp_path / "known")
    assert "before every question: 'ask: '" in capsys.readouterr().out
    assert DocumentStore.open(tmp_path / "known").encoder["query_prompt"] == "ask: "
    run(folder, tmp_path / "chosen", "--query-prompt", "")
    assert "before every question" not in capsys.readouterr().out
    assert DocumentStore.open(tmp_path / "chosen").encoder["query_prompt"] == ""


def test_code_of_an_encoder_needs_an_option(folder, tmp_path):
    with pytest.raises(ValueError, match="--trust-remote-code"):
        run(folder, tmp_path / "store", encoder="infly/inf-retriever-v1-1.5b")
    assert not (tmp_path / "store").exists()


def test_what_another_process_is_at_work_on_is_said(folder, tmp_path, capsys):
    output = tmp_path / "store"
    documents, encoder = (
        pq.read_table(folder / "documents.parquet"),
        DocumentEncoder(f"{folder}/encoder", device="cpu"),
    )
    other = CorpusEncoding.prepare(documents, encoder, output, 256, 6, "float16")
    with other.share_directory(), try_lock(other.shards.file(2)):
        run(folder, output)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 4 shards are done. Other processes encode the rest" in said
    run(folder, output)
    assert len(DocumentStore.open(output)) == 20


@pytest.mark.parametrize("given, address", [(["--ray", "local"], None), (["--ray", "10.0.0.1:6379"], "10.0.0.1:6379")])
def test_ray_is_given_what_makes_the_encoder(folder, tmp_path, monkeypatch, given, address):
    called = {}

    def encode(documents, make_encoder, path, **options):
        called.update(options, store=path)
        assert make_encoder().identity["name"] == f"{folder}/encoder"
        return amer.corpus.encode_corpus(amer.corpus.open_documents(documents), make_encoder(), path)

    monkeypatch.setattr("amer.corpus.ray_encoding.encode_corpus_with_ray", encode)
    run(folder, tmp_path / "store", *given, "--ray-actors", "3")
    assert called["address"] == address
    assert (called["num_actors"], called["shard_size"], called["dtype"]) == (3, 6, "float16")
