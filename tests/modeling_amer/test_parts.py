"""A model that splits questions: where parts begin and end, and one vector for each part read by itself."""

from __future__ import annotations

import itertools
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from sentence_transformers import SentenceTransformer

from modeling_amer import AMERConfig, AMERModel, Part, part_labels
from modeling_amer.encoder_amer import DEPTHS
from modeling_amer.parts_amer import BEGINS, INSIDE, OUTSIDE, find_parts, likeliest_labels
from tests.conftest import DIM, SPLITS, build_mini, build_splitting, depths_of

QUESTIONS = [
    "river; bank, and spring",
    "bank",
    "a river?",
    "???",
    "word " * 2000,
    "東京はどこですか",
    "river; bank, and spring",
]

FRESH_PROCESS = """
import json, sys
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, document_encoder_path=sys.argv[2])
assert "modeling_amer" not in sys.modules
query_embeddings, mask = model.encode_query(["river; bank, and spring", "bank"], num_query_vectors="auto")
parts = [tuple(part) for part in model.find_parts(["river; bank, and spring"])[0]]
torch.save([query_embeddings, mask, parts], sys.argv[3])
"""


@pytest.fixture
def model(tiny_encoder) -> AMERModel:
    """Splits the first three questions; the rest is random."""
    spans = [[[0, 5], [7, 11], [17, 23]], [[0, 4]], [[0, 7]]]
    return build_splitting(tiny_encoder, dict(zip(QUESTIONS[:3], spans, strict=True)))


# ------------------------------------------------------------------------------------------------- labels to parts


def labelled(question: str, labels: str, most: int = 9) -> list[Part]:
    """One token a character, with one label each: o, b, i; a space parts words, as do changes to and from marks."""
    words, word = [], -1
    for i, character in enumerate(question):
        if i == 0 or not (character.isalnum() and question[i - 1].isalnum()):
            word += 1
        words.append(-1 if character == " " else word)
    offsets = torch.tensor([[i, i + 1] for i in range(len(question))])
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor(["obi".index(label) for label in labels]), 3)
    return find_parts(question, logits, offsets, torch.tensor(words), most)


@pytest.mark.parametrize(
    ("question", "labels", "found"),
    [
        ("ab, cd", "bioobi", ["ab", "cd"]),
        ("ab cd", "biiii", ["ab cd"]),
        ("ab cd", "iiiii", ["ab cd"]),  # inside without a beginning
        ("ab cd", "ooooo", ["ab cd"]),  # none: the whole question
        ("ab cd", "oibbb", ["cd"]),  # a word is what its first token is
        ("ab, cd", "biobbb", ["ab", "cd"]),  # and is never cut
        ("x ab cd y", "oobioiioo", ["ab cd"]),
    ],
)
def test_labels_are_cut_into_parts(question, labels, found):
    parts = labelled(question, labels)
    assert [part.text for part in parts] == found
    assert all(question[part.start : part.end] == part.text for part in parts)


@pytest.mark.parametrize(("most", "found"), [(1, ["a;b;c;d"]), (2, ["a", "b;c;d"]), (4, ["a", "b", "c", "d"])])
def test_the_last_of_too_many_parts_reaches_to_the_end(most, found):
    assert [part.text for part in labelled("a;b;c;d", "bobobob", most)] == found


def test_a_mark_that_the_tokenizer_joins_to_its_word_parts_two_parts():
    """As SentencePiece does: "ab," is one word of two tokens."""
    offsets, words = torch.tensor([[0, 2], [2, 3], [4, 6]]), torch.tensor([0, 0, 1])
    logits = 9.0 * torch.tensor([[0, 1, 0], [1, 0, 0], [0, 1, 0]])
    assert [part.text for part in find_parts("ab, cd", logits, offsets, words, 9)] == ["ab", "cd"]


@pytest.mark.parametrize("question", ["सूची को कैसे", "عَرَبِيّ لغة"])
def test_no_word_is_cut_at_its_vowel_signs(question):
    """Each character is a token; those of the first word say by turns that a part begins and that it ends."""
    words = torch.tensor([-1 if c == " " else question[:i].count(" ") for i, c in enumerate(question)])
    offsets = torch.tensor([[i, i + 1] for i in range(len(question))])
    labels = torch.full((len(question),), OUTSIDE)
    labels[: question.index(" ") : 2] = BEGINS
    logits = 9.0 * torch.nn.functional.one_hot(labels, 3)
    assert [part.text for part in find_parts(question, logits, offsets, words, 9)] == [question.split()[0]]


def test_the_likeliest_labels_are_those_of_every_allowed_sequence():
    generator = torch.Generator().manual_seed(0)
    before = {OUTSIDE: {OUTSIDE, BEGINS, INSIDE}, BEGINS: {OUTSIDE}, INSIDE: {BEGINS, INSIDE}}
    for length in range(6):
        scores = torch.randn(length, 3, generator=generator).log_softmax(dim=-1)
        allowed = [
            labels
            for labels in itertools.product(range(3), repeat=length)
            if all(first in before[then] for first, then in itertools.pairwise([OUTSIDE, *labels]))
        ]
        best = max(allowed, key=lambda labels: sum(scores[place, label] for place, label in enumerate(labels)))
        assert likeliest_labels(scores.tolist()) == list(best)


def test_labels_of_known_parts():
    offsets = torch.tensor([[0, 0], [0, 2], [2, 4], [4, 5], [6, 8], [0, 0]])
    assert part_labels([[0, 4], [6, 8]], offsets).tolist() == [OUTSIDE, BEGINS, INSIDE, OUTSIDE, BEGINS, OUTSIDE]
    assert part_labels([], offsets).tolist() == [OUTSIDE] * 6


# ------------------------------------------------------------------------------------------------------- encoding


def test_each_part_has_the_vector_it_has_alone(model):
    model.config.context_weight = 0
    query_embeddings, mask = model.encode_query(QUESTIONS, "auto", batch_size=2)
    assert mask.sum(dim=1).tolist()[:3] == [3, 1, 1] and mask[:, 0].all()
    for place, part in enumerate(["river", "bank", "spring"]):
        alone = model.encode_query(input_vectors=[model.document_encoder.encode_tokens([part])[0].vectors])
        torch.testing.assert_close(query_embeddings[0, place], alone[0, 0], atol=1e-5, rtol=0)
    assert torch.isfinite(query_embeddings).all()
    torch.testing.assert_close(query_embeddings.norm(dim=-1), mask.float())
    torch.testing.assert_close(query_embeddings[0], query_embeddings[6])


def test_questions_beyond_a_group_have_the_vectors_they_have_within_one(model, monkeypatch):
    together, parts = model.encode_query(QUESTIONS, "auto"), model.find_parts(QUESTIONS)
    monkeypatch.setattr("modeling_amer.parts_amer.GROUP", 3)
    in_groups = model.encode_query(QUESTIONS, "auto")
    torch.testing.assert_close(in_groups.query_embeddings, together.query_embeddings, atol=1e-5, rtol=0)
    assert torch.equal(in_groups.mask, together.mask) and model.find_parts(QUESTIONS) == parts


def test_parts_have_a_share_of_the_whole_question(model):
    model.config.context_weight = 0
    alone, whole = model.encode_query(QUESTIONS, "auto")[0], model.document_encoder.encode(QUESTIONS)
    model.config.context_weight = 0.25
    found, mask = model.encode_query(QUESTIONS, "auto")
    expected = torch.nn.functional.normalize(alone[0] + 0.25 * whole[0], dim=-1)
    torch.testing.assert_close(found[0, :3], expected[:3], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[mask.sum(dim=1) == 1], alone[mask.sum(dim=1) == 1])  # the part is the question


@pytest.mark.parametrize("anchor", ["tokens", "vector"])
def test_each_vector_has_its_share_of_the_encoder_but_not_in_training(tiny_encoder, anchor):
    model = build_mini(tiny_encoder, anchor=anchor, emission="autoregressive", stop_score=False)
    torch.nn.init.normal_(model.output_projection.weight)
    alone, whole = model.encode_query(QUESTIONS, 2), model.document_encoder.encode(QUESTIONS)
    model.config.encoder_weight = 0.7
    expected = torch.nn.functional.normalize(alone + 0.7 * whole[:, None], dim=-1)
    torch.testing.assert_close(model.encode_query(QUESTIONS, 2), expected, atol=1e-5, rtol=0)
    (tokens,) = model.document_encoder.encode_tokens(QUESTIONS[:1])
    trained = model.train()(input_vectors=tokens.vectors[None], num_query_vectors=2).query_embeddings
    torch.testing.assert_close(trained.detach()[0], alone[0], atol=1e-5, rtol=0)


def test_what_is_fed_back_in_training_has_no_share_of_the_encoder(tiny_encoder):
    model = build_mini(tiny_encoder, emission="autoregressive", stop_score=False, encoder_weight=0.7).train()
    torch.nn.init.normal_(model.output_projection.weight)
    (tokens,) = model.document_encoder.encode_tokens(QUESTIONS[:1])
    inputs = {"input_vectors": tokens.vectors[None], "num_query_vectors": 3}
    plain = model(**inputs).query_embeddings
    model.gradient_checkpointing_enable({"use_reentrant": False})  # what is fed back is then rolled out anew
    torch.testing.assert_close(model(**inputs).query_embeddings, plain, atol=1e-5, rtol=0)


def test_a_fixed_number_takes_the_rest_of_the_question_into_the_last(model):
    model.config.context_weight = 0
    two = model.encode_query(QUESTIONS, 2)
    assert two.shape == (len(QUESTIONS), 2, DIM)
    rest = model.encode_query("bank, and spring", 1)[0]
    torch.testing.assert_close(two[0, 0], model.encode_query("river", 1)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(two[0, 1], rest, atol=1e-5, rtol=0)
    assert (two[1, 1] == 0).all() and two[1, 0].norm() > 0.99


def test_untrained_it_is_the_encoder(tiny_encoder):
    for anchor in ("tokens", "vector"):
        options = {**SPLITS, "anchor": anchor, "document_encoder": {"name": tiny_encoder}}
        model = AMERModel.from_scratch(DIM, layers=1, width=32, **options)
        torch.nn.init.zeros_(model.part_labeller.output_projection.weight)
        expected = torch.from_numpy(SentenceTransformer(tiny_encoder, device="cpu").encode(QUESTIONS))
        torch.testing.assert_close(model.encode_query(QUESTIONS)[:, 0], expected, atol=1e-5, rtol=0)


def test_depths_are_layers_from_the_first_to_the_last(model):
    encoder, texts = model.document_encoder, ["river; bank, and spring", "bank"]
    inputs = encoder.tokenizer(texts[0], return_tensors="pt")
    layers = encoder.model(**inputs, output_hidden_states=True).hidden_states
    for rows, tokens, vectors in encoder.encode_depths(texts, 1):
        torch.testing.assert_close(vectors, encoder.encode([texts[row] for row in rows]))
        if rows == [0]:
            found = tokens[0].vectors.unflatten(-1, (DEPTHS, DIM))
            for depth, layer in ((0, layers[0]), (DEPTHS - 1, layers[-1])):
                torch.testing.assert_close(found[:, depth], torch.nn.functional.layer_norm(layer[0], (DIM,)))


def test_tokens_see_the_whole_question(model):
    (tokens,) = depths_of(model, ["river; bank, and spring"])
    changed = tokens.vectors.clone()
    changed[-1] += 1
    with torch.no_grad():
        before, after = (model(input_words=words[None]).part_logits[0] for words in (tokens.vectors, changed))
    assert (before - after).abs().amax(dim=1).min() > 1e-4


def test_words_are_those_of_the_part(model):
    assert model.find_parts(QUESTIONS[:2]) == [
        [Part("river", 0, 5), Part("bank", 7, 11), Part("spring", 17, 23)],
        [Part("bank", 0, 4)],
    ]
    weights = model.attribute("river; bank, and spring")
    assert [[word.word for word in own] for own in weights] == [["river"], ["bank"], ["spring"]]
    assert [(own[0].start, own[0].end) for own in weights] == [(0, 5), (7, 11), (17, 23)]
    assert all(0 < own[0].weight <= 1 for own in weights)
    assert model.find_parts(QUESTIONS[:1], most=2)[0][1] == Part("bank, and spring", 7, 23)


def test_a_model_that_was_asked_goes_to_another_process(model):
    expected = model.encode_query(QUESTIONS[:2])
    again = ForkingPickler.loads(ForkingPickler.dumps(model))
    torch.testing.assert_close(again.encode_query(QUESTIONS[:2]), expected)


def test_the_document_encoder_has_the_precision_that_is_set(tiny_encoder):
    model = build_mini(tiny_encoder, **SPLITS)
    model.document_encoder_dtype = torch.bfloat16
    assert model.document_encoder.model.dtype == torch.bfloat16 and model.dtype == torch.float32
    assert model.encode_query(QUESTIONS[:2]).dtype == torch.float32


def test_a_model_with_the_labeller_of_an_earlier_version_is_refused_with_what_to_do(tiny_encoder, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("encoder_amer", "parts_amer"):
            patch.setattr(f"modeling_amer.{module}.DEPTHS", 2)
        build_mini(tiny_encoder, **SPLITS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="An earlier version trained its part labeller: train the model again"):
        AMERModel.from_pretrained(tmp_path)


def test_a_saved_model_splits_in_a_process_without_the_project(model, tiny_encoder, tmp_path):
    model.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-c", FRESH_PROCESS, tmp_path / "model", tiny_encoder, tmp_path / "out"]
    subprocess.run(command, check=True, cwd=tmp_path)
    query_embeddings, mask, parts = torch.load(tmp_path / "out")
    expected = model.encode_query(["river; bank, and spring", "bank"], "auto")
    torch.testing.assert_close(query_embeddings, expected.query_embeddings, atol=1e-6, rtol=0)
    assert torch.equal(mask, expected.mask)
    assert parts == [("river", 0, 5), ("bank", 7, 11), ("spring", 17, 23)]


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("options", [{"stop_score": True}, {"emission": "one_pass"}], ids=str)
def test_what_does_not_go_with_splitting_is_refused(tiny_encoder, options):
    with pytest.raises(ValueError, match="splits questions reads token vectors alone"):
        build_mini(tiny_encoder, **{**SPLITS, **options})
    with pytest.raises(ValueError, match="splits questions reads token vectors alone"):
        AMERConfig(splits_questions=True, prompt_template="{query}", anchor="tokens")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_weight": -0.1}, "context_weight must be a number of at least 0, got -0.1"),
        ({"encoder_weight": float("nan")}, "encoder_weight must be a number of at least 0, got nan"),
        ({"encoder_weight": 1.0, "anchor": None}, "set anchor"),
    ],
)
def test_weights_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AMERConfig(**{"anchor": "vector", **options})


def test_bad_input_is_refused(model, tiny_encoder):
    (tokens,) = model.document_encoder.encode_tokens(["river; bank"])
    with pytest.raises(ValueError, match="encodes their parts itself"):
        model.encode_query(["river; bank"], input_vectors=[tokens.vectors])
    with pytest.raises(ValueError, match="not 2: pass each part by itself"):
        model(input_vectors=tokens.vectors[None], num_query_vectors=2)
    with pytest.raises(ValueError, match='at least 1 or "auto", got 0'):
        model.encode_query(["river"], 0)
    for most in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match=f"most must be an integer of at least 1, got {most!r}"):
            model.find_parts(["river"], most)
    with pytest.raises(ValueError, match="does not split questions"):
        build_mini(tiny_encoder).find_parts(["river"])
    with pytest.raises(ValueError, match="takes no input_words"):
        build_mini(tiny_encoder)(input_words=tokens.vectors[None])
    with pytest.raises(ValueError, match=f"have 3 entries each, expected {5 * DIM}"):
        model(input_words=torch.zeros(1, 2, 3))
    assert model.encode_query(input_vectors=[tokens.vectors]).shape == (1, 1, DIM)
    assert model.encode_query(input_vectors=[tokens.vectors], num_query_vectors="auto").mask.tolist() == [[True]]
