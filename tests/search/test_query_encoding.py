"""Encoding questions: in their order, whatever the batches; resumed to the same bytes; one model in one directory."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from amer.corpus.shards import file_checksum
from amer.files import read_json, write_json
from amer.search import encode_queries, load_query_embeddings
from modeling_amer import AMERModel
from tests.conftest import DIM, SPLITS, build, build_mini

QUESTIONS = [f"question {row} {'long ' * (row * 5 % 7)}" for row in range(18)]
ENCODER = {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}
EMBEDDINGS_FILE = "query_embeddings.json"


class ToyEncoder:
    """A fake document encoder: a question's vector is drawn with its length as the seed."""

    identity = ENCODER

    def encode_queries(self, texts: list[str], batch_size: int) -> np.ndarray:
        vectors = [torch.randn(DIM, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return normalize(torch.stack(vectors), dim=-1).numpy()


@pytest.fixture(scope="module")
def model(llama) -> AMERModel:
    return build(llama, document_encoder=ENCODER)


@pytest.fixture(scope="module")
def anchored(llama) -> AMERModel:
    return build(llama, anchored=True, document_encoder=ENCODER)


@pytest.fixture(scope="module")
def unbroken(model, tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("unbroken") / "queries"
    assert encode(model, path)
    return contents(path)


def encode(model: AMERModel, path: Path, questions: list[str] | None = QUESTIONS, *vectors, **options) -> bool:
    options = {"shard_size": 4, "batch_size": 3, "show_progress_bar": False, **options}
    return encode_queries(model, path, questions, *vectors, **options)


def interrupted(model: AMERModel, path: Path, calls: int) -> None:
    """Encode until the model has been called so often, the call that tries its arguments included."""
    numbers, sound = count(), model.encode_query

    def until(*arguments, **options):
        if next(numbers) == calls:
            raise KeyboardInterrupt
        return sound(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model, "encode_query", until)
        encode(model, path)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_vectors_are_those_of_the_model_in_the_order_of_the_questions(model, tmp_path):
    assert encode(model, tmp_path / "queries", num_query_vectors=2)
    embeddings = load_query_embeddings(tmp_path / "queries")
    assert embeddings.shape == (18, 2, DIM) and embeddings.dtype == np.float32
    one_by_one = [model.encode_query(question, num_query_vectors=2) for question in QUESTIONS]
    np.testing.assert_allclose(embeddings, torch.stack(one_by_one), atol=1e-5)
    assert len(list((tmp_path / "queries").glob("query_embeddings-*-of-00005.npy"))) == 5


@pytest.mark.parametrize("kind", [SPLITS, {"stop_score": True}], ids=["splits", "stops"])
def test_a_model_that_chooses_the_number_fills_up_with_zeros(tiny_encoder, tmp_path, kind):
    model = build_mini(tiny_encoder, **kind).eval()
    assert encode(model, tmp_path / "queries")
    embeddings = load_query_embeddings(tmp_path / "queries")
    chosen, mask = model.encode_query(QUESTIONS, "auto")
    m = chosen.shape[1]
    assert embeddings.shape == (18, model.config.max_query_vectors, DIM)
    np.testing.assert_allclose(embeddings[:, :m], chosen, atol=1e-5)
    np.testing.assert_array_equal(embeddings[:, :m].any(axis=-1), mask)
    assert not embeddings[:, m:].any()


@pytest.mark.slow
def test_the_batch_size_does_not_change_the_vectors_of_a_real_decoder(smollm2, tmp_path):
    model = build(smollm2, document_dim=384, num_query_vectors=2)
    questions = [f"who {'really ' * (row * 5 % 8)}wrote it?" for row in range(8)]
    embeddings = []
    for batch_size in (1, 7, 64):
        path = tmp_path / str(batch_size)
        encode(model, path, questions, batch_size=batch_size, shard_size=8)
        embeddings.append(load_query_embeddings(path))
    assert np.abs(embeddings[0][1:] - embeddings[0][:-1]).max() > 1e-2  # the questions do differ
    for other in embeddings[1:]:
        np.testing.assert_allclose(other, embeddings[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_an_interrupted_run_resumes_to_the_same_bytes(model, tmp_path, unbroken, calls):
    path = tmp_path / "queries"
    interrupted(model, path, calls)
    kept = {file.name: file.stat().st_mtime_ns for file in path.glob("*.npy")}
    assert len(kept) == calls - 1
    with pytest.raises(FileNotFoundError, match="to resume"):
        load_query_embeddings(path)
    assert encode(model, path)
    assert contents(path) == unbroken
    assert {name: (path / name).stat().st_mtime_ns for name in kept} == kept


def test_workers_of_any_number_share_the_work(model, tmp_path, unbroken):
    path = tmp_path / "queries"
    assert [encode(model, path, worker=worker, num_workers=3) for worker in (2, 0)] == [False, False]
    assert encode(model, path, worker=0, num_workers=1)
    assert contents(path) == unbroken
    assert encode(model, path, worker=1, num_workers=3)  # too late, with nothing left to do
    assert contents(path) == unbroken


def test_the_same_model_from_another_folder_goes_on(model, tmp_path):
    interrupted(model, tmp_path / "queries", 3)
    model.save_pretrained(tmp_path / "model")
    assert encode(AMERModel.from_pretrained(tmp_path / "model"), tmp_path / "queries")
    np.testing.assert_allclose(load_query_embeddings(tmp_path / "queries"), model.encode_query(QUESTIONS), atol=1e-5)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "change, named",
    [
        ({"questions": QUESTIONS[:-1]}, "count: there 18, now 17"),
        ({"questions": QUESTIONS[::-1]}, "questions_sha256"),
        ({"num_query_vectors": 2}, "num_query_vectors: there 3, now 2"),
        ({"shard_size": 5}, "shard_size: there 4, now 5"),
    ],
)
def test_other_questions_or_sizes_are_refused(model, tmp_path, finished, change, named):
    path = tmp_path / "queries"
    encode(model, path) if finished else interrupted(model, path, 3)
    before = contents(path)
    with pytest.raises(ValueError, match=rf"other contents \(.*{named}"):
        encode(model, path, **change)
    assert contents(path) == before


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda model: model.output_projection.weight.data[0, 0].neg_(), r"\(weights_sha256: there \w+, now \w+\)"),
        (lambda model: model.get_input_embeddings().weight.data[-1, -1].neg_(), r"\(weights_sha256"),
        (lambda model: model.bfloat16(), "precision: there float32, now bfloat16"),
        (lambda model: setattr(model.config, "prompt_template", "{query}"), r"\(prompt_template"),
        (lambda model: setattr(model.config, "max_query_length", 3), r"\(max_query_length: there \d+, now 3"),
        (lambda model: setattr(model.config, "context_weight", 0.7), r"\(context_weight: there 0\.5, now 0\.7"),
    ],
)
def test_another_model_is_refused(model, llama, tmp_path, change, named):
    interrupted(model, tmp_path / "queries", 3)
    other = build(llama, document_encoder=ENCODER)
    change(other)
    with pytest.raises(ValueError, match=f"other contents .*{named}"):
        encode(other, tmp_path / "queries")


def test_another_precision_of_the_encoder_is_refused(tiny_encoder, tmp_path):
    interrupted(build_mini(tiny_encoder).eval(), tmp_path / "queries", 3)
    other = build_mini(tiny_encoder).eval()
    other.document_encoder_dtype = torch.bfloat16
    with pytest.raises(ValueError, match="encoder_precision: there None, now bfloat16"):
        encode(other, tmp_path / "queries")


def test_an_anchored_model_gets_vectors_or_the_encoder_that_makes_them(anchored, tmp_path):
    vectors = ToyEncoder().encode_queries(QUESTIONS, 4)
    encode(anchored, tmp_path / "given", QUESTIONS, vectors)
    encode(anchored, tmp_path / "made", encoder=ToyEncoder())
    given, made = (load_query_embeddings(tmp_path / name) for name in ("given", "made"))
    np.testing.assert_array_equal(given, made)
    np.testing.assert_allclose(given, anchored.encode_query(QUESTIONS, input_vectors=vectors), atol=1e-5)
    with pytest.raises(ValueError, match=r"other contents \(query_vectors_sha256"):
        encode(anchored, tmp_path / "given", QUESTIONS, -vectors)


def test_a_model_of_vectors_reads_vectors(llama, tmp_path):
    model, vectors = build(llama, reads_text=False), np.random.default_rng(0).standard_normal((10, DIM))
    encode(model, tmp_path / "queries", None, vectors)
    embeddings = load_query_embeddings(tmp_path / "queries")
    np.testing.assert_allclose(embeddings, model.encode_query(input_vectors=vectors), atol=1e-5)


@pytest.mark.parametrize(
    "questions, options, message",
    [
        ([], {}, "'questions': 0"),
        (None, {}, "no questions"),
        (["bank", " "], {}, "Question 1 is empty"),
        (["bank", None], {}, "Question 1 is a NoneType"),
        (["bank"] * 3, {"input_vectors": np.eye(2, DIM)}, "'questions': 3, 'input_vectors': 2"),
        (["bank"], {"input_vectors": np.full((1, DIM), np.nan)}, "NaN"),
        (["bank"], {"input_vectors": np.eye(1, DIM)}, "not anchored"),
        (["bank"], {"num_query_vectors": 0}, "num_query_vectors"),
        (["bank"], {"batch_size": 0}, "batch_size"),
        (["bank"], {"shard_size": 0}, "shard_size"),
        (["bank"], {"input_vectors": np.eye(1, DIM), "encoder": ToyEncoder()}, "pass one of them"),
    ],
)
def test_what_cannot_be_encoded_is_refused_before_anything_is_written(model, tmp_path, questions, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        encode(model, tmp_path / "queries", questions, **options)
    assert list(tmp_path.iterdir()) == []


def test_another_document_encoder_than_the_model_s_is_refused(anchored, tmp_path):
    encoder = ToyEncoder()
    encoder.identity = {**ENCODER, "query_prompt": "query: "}
    with pytest.raises(ValueError, match="trained with"):
        encode(anchored, tmp_path / "queries", encoder=encoder)


def test_a_diverged_model_stops_the_run(llama, tmp_path):
    model = build(llama)
    model.output_projection.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"query_embeddings-00000-of-00005\.npy: the vector of row 0 has length nan"):
        encode(model, tmp_path / "queries")


def test_one_bad_vector_of_a_question_is_found(model, tmp_path, monkeypatch):
    bad = torch.full((18, 3, DIM), DIM**-0.5)
    bad[6, 2] *= 0.5
    monkeypatch.setattr(model, "encode_query", lambda texts, *_, **__: bad[[QUESTIONS.index(text) for text in texts]])
    with pytest.raises(ValueError, match=r"query_embeddings-00001-of-00005\.npy: the vector of row 2 has length 0\.5"):
        encode(model, tmp_path / "queries")


@pytest.fixture
def finished(unbroken, tmp_path) -> Path:
    path = tmp_path / "queries"
    path.mkdir()
    for name, data in unbroken.items():
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("keep", [0, 20, 130, -1])
def test_a_truncated_shard_is_refused_by_name(finished, keep):
    file = finished / "query_embeddings-00003-of-00005.npy"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(OSError, match=r"query_embeddings-00003-of-00005\.npy"):
        load_query_embeddings(finished)


def test_one_changed_byte_is_noticed(finished):
    file = finished / "query_embeddings-00003-of-00005.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(OSError, match=r"query_embeddings-00003-of-00005\.npy is damaged"):
        load_query_embeddings(finished)


def test_a_shard_of_another_shape_is_refused(finished):
    file = finished / "query_embeddings-00003-of-00005.npy"
    np.save(file, np.load(file)[:, :2])
    description = read_json(finished / EMBEDDINGS_FILE)
    description["checksums"][3] = file_checksum(file)
    write_json(finished / EMBEDDINGS_FILE, description)
    with pytest.raises(ValueError, match=r"query_embeddings-00003-of-00005\.npy holds float32 \(4, 2, 8\)"):
        load_query_embeddings(finished)


def test_a_missing_shard_is_named(finished):
    (finished / "query_embeddings-00003-of-00005.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"query_embeddings-00003-of-00005\.npy"):
        load_query_embeddings(finished)


@pytest.mark.parametrize("change", [{"count": 0}, {"dim": "8"}, {"num_query_vectors": None}, {"checksums": []}])
def test_a_wrong_description_is_refused(finished, change):
    write_json(finished / EMBEDDINGS_FILE, {**read_json(finished / EMBEDDINGS_FILE), **change})
    with pytest.raises(ValueError, match=r"query_embeddings\.json"):
        load_query_embeddings(finished)


def test_a_directory_of_other_files_is_left_alone(model, tmp_path):
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(FileExistsError, match="other files"):
        encode(model, tmp_path)
    assert contents(tmp_path) == {"store.json": b"{}"}
