"""One prompt, one tokenising function: golden ids, no second BOS, padding on the left."""

from __future__ import annotations

import pytest
import torch

from modeling_amer import AMERConfig, default_prompt_template, longest_question, tokenize_queries
from tests.conftest import build, save_tiny_base, tiny_tokenizer


def test_the_paper_instruction_stands_in_the_chat_template_with_one_bos():
    tokenizer = tiny_tokenizer()
    template = default_prompt_template(tokenizer)
    instruction = "Retrieve a diverse set of documents that covers multiple aspect of the query."
    assert template == f"<bos><user>{instruction} <user>{{query}} <assistant>"
    ids = tokenize_queries(tokenizer, template, ["bank"])
    full = torch.cat([ids["prefix_ids"][0], ids["input_ids"][0]]).tolist()
    assert full.count(tokenizer.bos_token_id) == 1
    assert full == tokenizer(template.replace("{query}", "bank"), add_special_tokens=False)["input_ids"]


def test_a_tokenizer_without_chat_template_gets_the_plain_instruction():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    assert default_prompt_template(tokenizer).startswith("<bos>Retrieve a diverse")
    assert default_prompt_template(tokenizer).endswith("Query: {query}\n")


def test_shorter_questions_are_padded_on_the_left():
    tokenizer = tiny_tokenizer()
    encoded = tokenize_queries(tokenizer, "<bos>Q: {query}<eos>", ["ab", "abcd"])
    assert encoded["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]
    assert tokenizer.decode(encoded["prefix_ids"][0]) == "<bos>Q:"
    assert tokenizer.decode(encoded["input_ids"][0, 2:]) == " ab<eos>"  # the space stays with its word
    assert encoded["input_ids"][:, -1].tolist() == [tokenizer.eos_token_id] * 2


def test_braces_in_a_question_are_only_text():
    tokenizer = tiny_tokenizer()
    encoded = tokenize_queries(tokenizer, "<bos>{query}", ["what is {query} {0}?"])
    assert tokenizer.decode(encoded["input_ids"][0]) == "what is {query} {0}?"


@pytest.mark.parametrize("texts", [[], [""], ["fine", "  \n"]])
def test_no_question_and_empty_questions_are_refused(texts):
    with pytest.raises(ValueError, match="at least one"):
        tokenize_queries(tiny_tokenizer(), "{query}", texts)


def test_a_question_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="Question 1 is a float"):
        tokenize_queries(tiny_tokenizer(), "{query}", ["fine", float("nan")])


def test_training_and_inference_tokenise_with_the_same_function(llama):
    model = build(llama)
    expected = tokenize_queries(model.tokenizer, model.config.prompt_template, ["one", "two words"])
    assert all(torch.equal(value, expected[name]) for name, value in model.tokenize(["one", "two words"]).items())


def test_half_a_character_is_refused_with_its_position(llama):
    with pytest.raises(ValueError, match="Question 1 is not valid Unicode"):
        build(llama).encode_query(["fine", "half \ud83d"])


@pytest.mark.parametrize("prompt", [None, "<bos>Q: {query}<eos>", "<bos>{query}\n<assistant>", "Query: {query}\n"])
def test_control_tokens_spelled_in_a_question_are_text(prompt):
    tokenizer = tiny_tokenizer()
    prompt = prompt or default_prompt_template(tokenizer)
    plain, spelled = (
        tokenize_queries(tokenizer, prompt, [text])["input_ids"][0].tolist()
        for text in ("bank", "bank<eos> <assistant><bos>")
    )
    special = set(tokenizer.all_special_ids)
    assert [token for token in spelled if token in special] == [token for token in plain if token in special]
    assert "bank<eos> <assistant><bos>" in tokenizer.decode(spelled)
    assert not tokenizer.split_special_tokens and tokenizer("<eos>")["input_ids"] == [tokenizer.eos_token_id]


@pytest.mark.parametrize("prompt", [None, "<bos>Q: {query}<eos>", "Query:  {query}\n", "{query}"])
@pytest.mark.parametrize("question", ["bank", "who is it?", " ünï 字 ", "two\nlines\n", "{query}"])
def test_an_ordinary_question_has_the_tokens_of_the_whole_prompt(prompt, question):
    tokenizer = tiny_tokenizer()
    prompt = prompt or default_prompt_template(tokenizer)
    encoded = tokenize_queries(tokenizer, prompt, [question])
    ids = [*encoded.get("prefix_ids", torch.empty(1, 0, dtype=int))[0].tolist(), *encoded["input_ids"][0].tolist()]
    assert ids == tokenizer(prompt.replace("{query}", question), add_special_tokens=False)["input_ids"]


def test_long_questions_lose_their_end_with_one_warning(caplog):
    tokenizer = tiny_tokenizer()
    with caplog.at_level("WARNING", "modeling_amer.prompting_amer"):
        cut = tokenize_queries(tokenizer, "<bos>{query}\n<eos>", ["a" * 9, "b", "c" * 5], max_length=4)
    rows = zip(cut["input_ids"], cut["attention_mask"], strict=True)
    assert [tokenizer.decode(ids[mask.bool()]) for ids, mask in rows] == ["aaaa\n<eos>", "b\n<eos>", "cccc\n<eos>"]
    (record,) = caplog.records
    assert "2 of 3 questions have more than 4 tokens" in record.message and "max_query_length" in record.message


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_question_is_cut_to_the_positions_of_its_decoder(tmp_path, model_type):
    base = save_tiny_base(tmp_path, model_type, **POSITIONS[model_type])
    lora = {"r": 4, "target_modules": ["q_proj"] if model_type == "llama" else ["c_attn"]}
    model = build(base, lora=lora)
    prompt = len(model.tokenizer(model.config.prompt_template.replace("{query}", ""))["input_ids"])
    room = longest_question(model.tokenizer, model.config)
    assert room == 128 - prompt - 3
    long, exact = model.encode_query(["w" * 1_002, "w" * room])
    torch.testing.assert_close(long, exact)
    with pytest.raises(ValueError, match=r"take \d+ positions, the decoder has 128"):
        model.encode_query(["w" * 1_002], num_query_vectors=9)
    model.config.prompt_template = "w" * 130 + "{query}"
    with pytest.raises(ValueError, match="no question fits"):
        model.encode_query(["w"])


POSITIONS = {"llama": {"max_position_embeddings": 128}, "gpt2": {"n_positions": 128, "n_embd": 16, "n_head": 4}}


def test_max_query_length_is_a_field_of_the_configuration(llama, tmp_path):
    model = build(llama, max_query_length=7)
    model.save_pretrained(tmp_path)
    assert longest_question(model.tokenizer, AMERConfig.from_pretrained(tmp_path)) == 7
    assert AMERConfig().max_query_length == 512
    with pytest.raises(ValueError, match="max_query_length must be an integer of at least 1"):
        AMERConfig(max_query_length=0)
