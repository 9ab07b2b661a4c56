"""One prompt, one tokenising function: golden ids, no second BOS, padding on the left."""

from __future__ import annotations

import pytest
import torch

from modeling_amer import default_prompt_template, tokenize_queries
from modeling_amer.prompting_amer import MAX_QUERY_LENGTH
from tests.conftest import build, tiny_tokenizer


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


def test_of_a_very_long_question_the_beginning_is_read_and_said_so(llama, caplog):
    model = build(llama)
    long = "word " * 60_000  # 300 kB
    with caplog.at_level("WARNING", logger="modeling_amer"):
        encoded = model.tokenize([long, "bank", "word " * 20])
    lengths = encoded["attention_mask"].sum(dim=1)
    behind = model.config.prompt_template.partition("{query}")[2]
    tail = len(model.tokenizer(behind, add_special_tokens=False).input_ids)
    assert lengths.max() <= MAX_QUERY_LENGTH + tail + 1 and lengths[1] < lengths[2] < lengths[0]
    assert "1 of 3 questions have over 1,024 tokens" in caplog.text
    end = encoded["input_ids"][:, -tail:]
    assert (end == end[1]).all()  # the prompt goes on behind what is cut
