"""A small model over token vectors: the encoder when untrained, parts when trained, as many vectors as it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from amer.offline import MINILM, resolve_model
from modeling_amer import AMERConfig, AMERModel, QueryEmbeddings, emitted, pad_tokens
from tests.conftest import DIM, build, build_mini

QUESTIONS = ["bank", "a river, and a much longer question? yes", "???", "word " * 2000, "東京はどこですか"]

FRESH_PROCESS = """
import json, sys
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, document_encoder_path=sys.argv[2])
assert "modeling_amer" not in sys.modules and not any("mini" in path for path in sys.path)
query_embeddings, mask = model.encode_query(json.loads(sys.argv[3]), num_query_vectors="auto")
words = model.attribute("a river, and a bank")
torch.save([query_embeddings, mask, [[tuple(word) for word in own] for own in words]], sys.argv[4])
"""


@pytest.mark.parametrize("emission", ["one_pass", "autoregressive"])
@pytest.mark.parametrize("anchor", ["tokens", "vector"])
def test_untrained_every_vector_is_the_encoders_own(tiny_encoder, anchor, emission):
    model = AMERModel.from_scratch(
        DIM, layers=1, width=32, anchor=anchor, emission=emission, document_encoder={"name": tiny_encoder}
    )
    expected = torch.from_numpy(SentenceTransformer(tiny_encoder, device="cpu").encode(QUESTIONS))
    query_embeddings = model.encode_query(QUESTIONS, batch_size=2)
    torch.testing.assert_close(query_embeddings, expected[:, None].expand(-1, 4, -1), atol=1e-5, rtol=0)


def test_untrained_on_the_real_minilm_every_vector_is_its_own():
    folder = resolve_model(MINILM)
    if not Path(folder).is_dir():
        pytest.skip("needs the extra `offline`")
    model = AMERModel.from_scratch(384, document_encoder={"name": MINILM})
    model.document_encoder_path = folder
    expected = torch.from_numpy(SentenceTransformer(folder, device="cpu").encode(QUESTIONS))
    expected = normalize(expected, dim=-1)[:, None].expand(-1, 4, -1)
    torch.testing.assert_close(model.encode_query(QUESTIONS), expected, atol=1e-5, rtol=0)


def test_outputs_are_what_the_formula_says(tiny_encoder):
    model = build_mini(tiny_encoder)
    (tokens,) = model.document_encoder.encode_tokens(["a river, and a bank"])
    vectors = tokens.vectors
    with torch.no_grad():
        inputs = torch.cat([model.input_projection(vectors), model.query_tokens.weight[:3]])[None]
        states = model.backbone(inputs_embeds=inputs).last_hidden_state[0]
        outputs, weights, stops = [], [], []
        anchor = model.token_anchor
        keys = vectors * DIM**0.5 @ anchor.key.weight.T + states[:-3] @ anchor.state_key.weight.T
        for h in states[-3:]:
            scores = keys @ (anchor.query.weight @ h)
            weights.append((scores / 64**0.5).softmax(dim=0))
            correction = model.output_projection(h / 32**0.5)
            outputs.append(normalize(weights[-1] @ vectors + correction, dim=0))
            stops.append(model.stop_projection(h)[0])
        padded, mask = pad_tokens([vectors, vectors[:2].repeat(9, 1)])
        output = model(input_vectors=padded, input_mask=mask)
    torch.testing.assert_close(output.query_embeddings[0], torch.stack(outputs), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.attention[0, :, -len(vectors) :], torch.stack(weights), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.stop_logits[0], torch.stack(stops), atol=1e-5, rtol=1e-4)
    assert (output.attention[mask[:, None].expand_as(output.attention) == 0] == 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"emission": "autoregressive"}, {"anchor": "vector"}, {"anchor": None}], ids=str
)
def test_a_question_alone_has_the_vectors_it_has_among_others(tiny_encoder, options):
    model = build_mini(tiny_encoder, **options)
    together = model.encode_query(QUESTIONS, batch_size=3)
    alone = torch.stack([model.encode_query(question) for question in QUESTIONS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(5, 3))


def test_vectors_from_outside_give_what_the_models_own_give(tiny_encoder):
    model = build_mini(tiny_encoder)
    tokens = [question.vectors.numpy() for question in model.document_encoder.encode_tokens(QUESTIONS)]
    torch.testing.assert_close(
        model.encode_query(input_vectors=tokens), model.encode_query(QUESTIONS), atol=1e-6, rtol=0
    )


def test_the_first_vectors_do_not_depend_on_how_many_follow(tiny_encoder):
    model = build_mini(tiny_encoder)
    torch.testing.assert_close(
        model.encode_query(QUESTIONS, 2), model.encode_query(QUESTIONS, 4)[:, :2], atol=1e-5, rtol=0
    )


def test_a_decoder_with_text_of_its_own_reads_token_vectors_without_gaps(llama, tiny_encoder):
    for emission in ("autoregressive", "one_pass"):
        model = build(llama, anchor="tokens", emission=emission, document_encoder={"name": tiny_encoder})
        torch.nn.init.normal_(model.output_projection.weight, std=0.3)
        together = model.encode_query(QUESTIONS[:3])
        alone = torch.stack([model.encode_query(question) for question in QUESTIONS[:3]])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
        untrained = build(llama, anchor="tokens", emission=emission, document_encoder={"name": tiny_encoder})
        expected = torch.from_numpy(SentenceTransformer(tiny_encoder, device="cpu").encode(QUESTIONS[:1]))
        torch.testing.assert_close(untrained.encode_query(QUESTIONS[:1])[0, :1], expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------- how many vectors


def test_what_comes_after_the_stop_is_not_emitted():
    stops = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [3.0, -1.0, 3.0], [torch.nan] * 3])
    expected = [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert emitted(stops).int().tolist() == expected


@pytest.mark.parametrize("bias", [-50.0, 50.0, None])
def test_auto_gives_one_to_max_query_vectors(tiny_encoder, bias):
    model = build_mini(tiny_encoder)
    if bias is not None:
        model.stop_projection.bias.data.fill_(bias)
    else:
        model.stop_projection.weight.data.normal_(std=5)
    fixed = model.encode_query(QUESTIONS, 4)
    found = model.encode_query(QUESTIONS, num_query_vectors="auto", batch_size=2)
    assert isinstance(found, QueryEmbeddings) and found.mask.dtype == torch.bool
    most = found.mask.shape[1]
    assert most == {50.0: 1, -50.0: 4}.get(bias, most) and found.mask.any(dim=0).all()
    assert found.mask[:, 0].all() and (found.mask[:, 1:] <= found.mask[:, :-1]).all()
    torch.testing.assert_close(found.query_embeddings[found.mask], fixed[:, :most][found.mask], atol=1e-5, rtol=0)
    assert (found.query_embeddings[~found.mask] == 0).all()
    one = model.encode_query(QUESTIONS[1], num_query_vectors="auto")
    assert one.query_embeddings.shape == (one.mask.sum(), DIM)
    assert len(model.attribute(QUESTIONS[1])) == one.mask.sum()


def test_auto_needs_a_stop_score(tiny_encoder):
    with pytest.raises(ValueError, match="no stop score"):
        build_mini(tiny_encoder, stop_score=False).encode_query(["bank"], num_query_vectors="auto")


def test_words_have_the_weights_of_their_tokens(tiny_encoder):
    model = build_mini(tiny_encoder)
    question = "Ab, cd ef?"
    (tokens,) = model.document_encoder.encode_tokens([question])
    with torch.no_grad():
        attention = model(input_vectors=tokens.vectors[None], num_query_vectors=2).attention[0]
    found = model.attribute(question, 2)
    assert [word.word for word in found[0]] == ["Ab", ",", "cd", "ef", "?"]
    assert [(word.start, word.end) for word in found[1]] == [(0, 2), (2, 3), (4, 6), (7, 9), (9, 10)]
    for own, weights in zip(found, attention, strict=True):  # [CLS] a ##b , c ##d e ##f ? [SEP]
        expected = [weights[1:3].sum(), weights[3], weights[4:6].sum(), weights[6:8].sum(), weights[8]]
        np.testing.assert_allclose([word.weight for word in own], torch.stack(expected).numpy(), rtol=1e-5)
        assert sum(word.weight for word in own) < 1
    assert len(model.attribute("word " * 2000)[0]) < 64  # what the encoder did not read has no weight


def test_attribute_refuses_models_without_token_anchors(llama, tiny_encoder):
    with pytest.raises(ValueError, match='anchor="tokens"'):
        build_mini(tiny_encoder, anchor="vector").attribute("bank")


# --------------------------------------------------------------------------------------------------- saving, refusing


def test_a_saved_model_gives_the_same_in_a_process_that_does_not_see_the_project(tiny_encoder, tmp_path):
    model = build_mini(tiny_encoder)
    model.stop_projection.weight.data.normal_(std=5)
    model.save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), tiny_encoder, json.dumps(QUESTIONS), str(tmp_path / "out.pt")]
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-I", "-c", FRESH_PROCESS, *arguments], check=True, cwd=tmp_path, env=environment)
    query_embeddings, mask, words = torch.load(tmp_path / "out.pt")
    here = model.encode_query(QUESTIONS, num_query_vectors="auto")
    assert torch.equal(here.query_embeddings, query_embeddings) and torch.equal(here.mask, mask)
    assert words == [[tuple(word) for word in own] for own in model.attribute("a river, and a bank")]
    assert AMERModel.from_pretrained(tmp_path / "model", verify=True).config.max_query_vectors == 4


def test_configurations_saved_before_there_were_two_anchors_load(tmp_path):
    for anchored, anchor in ((True, "vector"), (False, None)):
        config = AMERConfig(document_dim=DIM)
        fields = {name: value for name, value in config.to_dict().items() if name not in NEW_FIELDS}
        (tmp_path / "config.json").write_text(json.dumps({**fields, "anchored": anchored}))
        loaded = AMERConfig.from_pretrained(tmp_path)
        assert loaded.anchor == anchor and loaded.anchored is anchored
        assert loaded.emission == "autoregressive" and not loaded.stop_score and not loaded.token_vectors
        assert "anchored" not in loaded.to_dict() and AMERConfig(**loaded.to_dict()).anchor == anchor


NEW_FIELDS = {"anchor", "token_vectors", "emission", "max_query_vectors", "stop_score"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": "words"}, "anchor must be one of None, vector, tokens"),
        ({"emission": "twice"}, "emission must be one of"),
        ({"max_query_vectors": 2}, r"max_query_vectors \(2\) must be at least num_query_vectors \(4\)"),
        ({"max_query_vectors": 0}, "max_query_vectors must be an integer of at least 1"),
        ({"width": 40}, "multiple of 32"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AMERModel.from_scratch(DIM, layers=1, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": [" "]}, "Question 0 is empty"),
        ({"texts": ["bank"], "num_query_vectors": 5}, "4 query tokens"),
        ({"input_vectors": [np.ones((3, DIM + 1))]}, rf"expected \(batch, length, {DIM}\)"),
        ({"input_vectors": np.ones((3, DIM))}, r"one array \(length, dim\)"),
        ({"input_vectors": [np.zeros((3, DIM))]}, "zero vector"),
        ({"texts": ["bank"], "input_vectors": [np.ones((3, DIM))] * 2}, "1 texts were given with 2"),
    ],
)
def test_what_cannot_be_encoded_is_refused(tiny_encoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_mini(tiny_encoder).encode_query(**arguments)


def test_padding_of_tokens_on_the_right_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="padded on the left"):
        build_mini(tiny_encoder)(input_vectors=torch.ones(1, 2, DIM), input_mask=torch.tensor([[1, 0]]))


def test_sentence_transformers_opens_it_and_gets_the_vectors_it_chooses(tiny_encoder, tmp_path):
    pytest.importorskip("sentence_transformers", minversion="6.0")
    from sentence_transformers import MultiVectorEncoder

    model = build_mini(tiny_encoder)
    model.stop_projection.weight.data.normal_(std=5)
    model.save_pretrained(tmp_path / "model")
    opened = MultiVectorEncoder(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    query_embeddings, mask = model.encode_query(QUESTIONS[:3], num_query_vectors="auto")
    for found, vectors, own in zip(opened.encode_query(QUESTIONS[:3]), query_embeddings, mask, strict=True):
        torch.testing.assert_close(torch.as_tensor(found), vectors[own], atol=1e-5, rtol=0)
