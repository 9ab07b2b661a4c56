"""A saved model opens in sentence-transformers: the same vectors, AMER's similarity, and no documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.0")

from sentence_transformers import MultiVectorEncoder, SentenceTransformer  # noqa: E402
from sentence_transformers.util import maxsim  # noqa: E402

from modeling_amer import AMERModel  # noqa: E402
from modeling_amer.sentence_transformers_amer import AMERModule, max_similarity, max_similarity_pairwise  # noqa: E402
from tests.conftest import DIM, LORA, build, build_splitting  # noqa: E402
from tests.hub.conftest import loopback_hub  # noqa: E402

ENCODER = {"name": "org/encoder", "revision": "0123abc", "document_prompt": "passage: "}
QUESTIONS = ["bank", "What is the longest river of them all?", "x", "a bank", "Who was it?"]


@pytest.fixture(scope="module")
def saved(llama, tmp_path_factory) -> tuple[AMERModel, str]:
    """A model and the folder it was saved to."""
    model = build(llama, document_encoder=ENCODER)
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(folder)
    return model, str(folder)


@pytest.fixture(scope="module")
def encoder(saved) -> MultiVectorEncoder:
    return MultiVectorEncoder(saved[1], trust_remote_code=True, device="cpu")


# ---------------------------------------------------------------------------------------------------------- vectors


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapter", "full"])
@pytest.mark.parametrize("m", [None, 1, 5])
def test_the_vectors_are_those_of_the_model_bit_for_bit(base, lora, m, tmp_path):
    model = build(base, lora=lora)
    model.save_pretrained(tmp_path / "model")
    encoder = MultiVectorEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    query_embeddings = encoder.encode_query(QUESTIONS, num_query_vectors=m)
    assert torch.equal(torch.stack(query_embeddings), model.encode_query(QUESTIONS, num_query_vectors=m))


def test_one_question_may_be_a_plain_string(saved, encoder):
    assert torch.equal(encoder.encode_query("a bank", num_query_vectors=2), saved[0].encode_query("a bank", 2))


def test_vectors_come_as_arrays_too(saved, encoder):
    arrays = encoder.encode_query(QUESTIONS, convert_to_numpy=True)
    np.testing.assert_array_equal(np.stack(arrays), saved[0].encode_query(QUESTIONS).numpy())


def test_many_batches_keep_the_order(saved, encoder):
    questions = [f"What is {'very ' * (7 * i % 24)}odd?" for i in range(24)]  # no two as long: both form equal batches
    query_embeddings = encoder.encode_query(questions, batch_size=4)
    assert torch.equal(torch.stack(query_embeddings), saved[0].encode_query(questions, batch_size=4))


def test_precision_and_base_can_be_chosen(saved, llama):
    options = {"dtype": torch.bfloat16, "base_model_name_or_path": llama}
    encoder = MultiVectorEncoder(saved[1], trust_remote_code=True, device="cpu", model_kwargs=options)
    assert encoder[0].model.backbone.dtype == torch.bfloat16
    assert encoder[0].model.output_projection.weight.dtype == torch.float32


def test_it_knows_dimension_and_tokenizer(encoder):
    assert encoder.get_embedding_dimension() == DIM
    assert encoder.tokenizer.bos_token == "<bos>"


# ------------------------------------------------------------------------------------------------------- similarity


def test_maxsim_of_documents_with_one_vector_is_the_search_with_the_average(saved, encoder):
    """Why AMER is not scored by late interaction: the query vectors collapse into one."""
    query_embeddings = encoder.encode_query(QUESTIONS)
    documents = torch.nn.functional.normalize(torch.randn(40, DIM, generator=torch.Generator().manual_seed(0)), dim=-1)
    late_interaction = maxsim(query_embeddings, list(documents[:, None]))
    average = torch.stack(query_embeddings).mean(dim=1) @ documents.T
    torch.testing.assert_close(late_interaction, 3 * average)  # m = 3
    assert not torch.equal(
        encoder.similarity(query_embeddings, documents).argsort(dim=1), late_interaction.argsort(dim=1)
    )


def test_a_document_at_one_query_vector_beats_one_between_them(encoder):
    queries = torch.eye(DIM)[None, :2]
    documents = torch.nn.functional.normalize(torch.stack([torch.eye(DIM)[0], torch.eye(DIM)[:2].sum(dim=0)]), dim=-1)
    assert maxsim(queries, documents[:, None]).argmax() == 1  # MaxSim prefers the document between
    assert encoder.similarity(queries, documents).argmax() == 0
    torch.testing.assert_close(encoder.similarity(queries, documents), torch.tensor([[1.0, 0.5**0.5]]))


FORMS = [
    lambda documents: documents,
    lambda documents: documents.numpy(),
    lambda documents: documents[:, None],
    lambda documents: list(documents),
    lambda documents: list(documents[:, None].numpy()),
]


@pytest.mark.parametrize("form", FORMS, ids=["tensor", "array", "batch", "vectors", "arrays"])
def test_similarity_is_the_largest_inner_product(form, encoder):
    random = np.random.default_rng(0)
    queries = [random.normal(size=(m, DIM)).astype(np.float32) for m in (1, 4, 2)]
    documents = random.normal(size=(6, DIM)).astype(np.float32)
    expected = np.array([[max(float(q @ d) for q in query) for d in documents] for query in queries])
    scores = encoder.similarity(queries, form(torch.from_numpy(documents)))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)
    pairs = encoder.similarity_pairwise(queries, form(torch.from_numpy(documents[:3])))
    np.testing.assert_allclose(pairs.numpy(), expected.diagonal(), rtol=1e-5)


def test_similarity_takes_what_encoding_gives(saved, encoder):
    documents = torch.randn(4, DIM)
    one, many = encoder.encode_query("a bank"), encoder.encode_query(["a bank", "x"])
    assert encoder.similarity(one, documents).shape == (1, 4)
    assert encoder.similarity(many, documents).shape == (2, 4)
    assert torch.equal(max_similarity(torch.stack(many), documents), encoder.similarity(many, documents))


def test_a_fixed_number_masks_the_vectors_that_a_splitting_model_does_not_make(tiny_encoder):
    module = AMERModule(build_splitting(tiny_encoder, {"river, bank": [[0, 5], [7, 11]]}).eval())
    features = module.preprocess(["river, bank"], task="query", num_query_vectors=3)
    assert module(features)["attention_mask"].tolist() == [[1, 1, 0]]


def test_documents_of_several_vectors_are_refused(encoder):
    queries = encoder.encode_query(["a bank", "x"])
    for documents in ([torch.randn(3, DIM), torch.randn(2, DIM)], torch.randn(2, 3, DIM)):
        with pytest.raises(ValueError, match="one vector each"):
            encoder.similarity(queries, documents)
        with pytest.raises(ValueError, match="one vector each"):
            encoder.similarity_pairwise(queries, documents)


def test_pairs_are_as_many_on_both_sides():
    with pytest.raises(ValueError, match="shorter than argument 1"):
        max_similarity_pairwise(torch.randn(3, 2, DIM), torch.randn(2, DIM))


# ----------------------------------------------------------------------------------------------------- what it is not


@pytest.mark.parametrize("method", ["encode_document", "encode"])
def test_documents_are_refused_and_their_encoder_is_named(encoder, method):
    message = r"encode_query.*SentenceTransformer\('org/encoder', revision='0123abc'\).*prompt='passage: '"
    with pytest.raises(ValueError, match=message):
        getattr(encoder, method)(["a document"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "query: "}, "its own prompt"),
        ({"num_query_vectors": 0}, "num_query_vectors"),
        ({"truncate_dim": 4}, "truncate_dim"),
    ],
    ids=["prompt", "m", "unknown"],
)
def test_what_would_be_ignored_is_refused(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode_query(["a bank"], **options)


def test_an_empty_question_is_refused(encoder):
    with pytest.raises(ValueError, match="empty"):
        encoder.encode_query(["a bank", " "])


@pytest.mark.parametrize("options", [{"processor_kwargs": {"padding_side": "right"}}, {"backend": "onnx"}])
def test_another_tokenizer_or_backend_is_refused(saved, options):
    with pytest.raises(ValueError, match="its tokenizer and runs in torch"):
        MultiVectorEncoder(saved[1], trust_remote_code=True, device="cpu", **options)


def test_code_is_run_on_trust_only(saved):
    with pytest.raises(ValueError, match="trust_remote_code"):
        MultiVectorEncoder(saved[1], device="cpu")


def test_a_plain_sentence_transformer_gives_no_vectors(saved):
    with pytest.raises(ValueError):
        SentenceTransformer(saved[1], trust_remote_code=True, device="cpu").encode(["a bank"])


# ------------------------------------------------------------------------------------------------------------- saving


def test_saved_from_sentence_transformers_it_is_the_same_model(saved, encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path / "again"), create_model_card=False)
    reloaded = MultiVectorEncoder(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    assert torch.equal(reloaded.encode_query("a bank"), saved[0].encode_query("a bank"))
    assert torch.equal(AMERModel.from_pretrained(tmp_path / "again").encode_query("x"), saved[0].encode_query("x"))


def test_weights_are_never_pickled(encoder, tmp_path):
    with pytest.raises(ValueError, match="safetensors"):
        encoder.save_pretrained(str(tmp_path / "again"), safe_serialization=False)
    assert not list(tmp_path.rglob("*.bin"))


# ----------------------------------------------------------------------------------------------------------- anchored


@pytest.fixture(scope="module")
def anchored(llama, minilm, minilm_folder, tmp_path_factory) -> tuple[AMERModel, str]:
    """An anchored model whose projections do something, and its folder."""
    identity = {**minilm.identity, "name": minilm_folder}
    model = build(llama, document_dim=minilm.dim, document_encoder=identity, anchored=True)
    torch.nn.init.normal_(model.output_projection.weight, std=0.3)
    folder = tmp_path_factory.mktemp("anchored") / "model"
    model.save_pretrained(folder)
    return model, str(folder)


def test_an_anchored_model_reads_the_document_encoders_vectors(anchored, minilm):
    encoder = MultiVectorEncoder(anchored[1], trust_remote_code=True, device="cpu")
    query_embeddings = encoder.encode_query(QUESTIONS, num_query_vectors=2)
    expected = anchored[0].encode_query(QUESTIONS, 2, input_vectors=minilm.encode_queries(QUESTIONS))
    assert torch.equal(torch.stack(query_embeddings), expected)
    document_encoder = encoder[0].document_encoder
    assert encoder[0].document_encoder is document_encoder  # loaded once
    assert document_encoder not in encoder.modules()  # beside the model, not saved or trained with it


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"name": "org/nowhere"}, OSError, r"'org/nowhere', which could not be loaded.*config_kwargs"),
        (None, ValueError, "names none"),
    ],
    ids=["unreachable", "unnamed"],
)
def test_a_missing_document_encoder_is_told_when_it_is_needed(anchored, named, error, message):
    encoder = MultiVectorEncoder(
        anchored[1],
        trust_remote_code=True,
        device="cpu",
        local_files_only=True,
        config_kwargs={"document_encoder": named},
    )
    with pytest.raises(error, match=message):
        encoder.encode_query(["a bank"])


# ----------------------------------------------------------------------------------------- from the Hub, code and all

CLIENT = """
import sys, numpy as np
from sentence_transformers import MultiVectorEncoder
encoder = MultiVectorEncoder("org/amer", trust_remote_code=True, device="cpu")
assert type(encoder[0]).__module__.startswith("transformers_modules.org.amer."), type(encoder[0])
assert type(encoder[0].model).__module__.startswith("transformers_modules.org.amer."), type(encoder[0].model)
np.save(sys.argv[1], np.stack(encoder.encode_query(["bank", "a longer question"], convert_to_numpy=True)))
"""
WITHOUT_SENTENCE_TRANSFORMERS = """
import sys
sys.modules["sentence_transformers"] = None  # as where it is not installed
from transformers import AutoModel
model = AutoModel.from_pretrained("org/amer", trust_remote_code=True)
assert model.encode_query(["a bank"], input_vectors=[[1.0] * 384]).shape == (1, 3, 384)
"""


@pytest.fixture(scope="module")
def hub(llama, minilm, minilm_folder, tmp_path_factory):
    """A Hub with an anchored model, its decoder and its document encoder, each under its own name."""
    folder = tmp_path_factory.mktemp("hub")
    with loopback_hub(folder) as running:
        running.seed("org/decoder", Path(llama))
        commit = running.seed("org/minilm", Path(minilm_folder))
        running.seed("org/minilm", {"modules.json": b"[]"})  # main moves on; the pinned commit is the one to take
        identity = {**minilm.identity, "name": "org/minilm", "revision": commit}
        model = build(llama, document_dim=minilm.dim, document_encoder=identity, anchored=True)
        torch.nn.init.normal_(model.output_projection.weight, std=0.3)
        model.config.base_model_name_or_path = "org/decoder"
        model.save_pretrained(folder / "model")
        running.seed("org/amer", folder / "model")
        yield running, model


def test_the_hub_is_enough(hub, minilm, tmp_path):
    running, model = hub
    running.run(CLIENT, tmp_path / "vectors.npy")
    questions = ["bank", "a longer question"]
    expected = model.encode_query(questions, input_vectors=minilm.encode_queries(questions))
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), expected.numpy())


def test_the_model_itself_does_not_ask_for_sentence_transformers(hub, tmp_path):
    hub[0].run(
        WITHOUT_SENTENCE_TRANSFORMERS, HF_HOME=tmp_path
    )  # a new cache: imports are checked when code is fetched
