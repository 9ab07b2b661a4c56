"""Settings that would be ignored, or that no model can be built with, are refused before anything is loaded."""

from __future__ import annotations

import pytest

from amer.trainer.arguments import ModelArguments
from amer.trainer.building import build_model
from amer.trainer.parsing import parse
from amer.trainer.resuming import settings_of

DATA = ["--dataset=data", "--store=store", "--use_cpu=1"]
SCRATCH, BASE = [*DATA, "--layers=1"], [*DATA, "--base_model=base"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lora_r=8", r"lora_r is 8.*base model only.*leave out lora_r"),
        ("dtype=bfloat16", r"dtype is 'bfloat16'.*leave out dtype"),
        ("prompt_template={query}", r"prompt_template is '\{query\}'.*leave out prompt_template"),
        ("base_model_revision=main", r"base_model_revision is 'main'.*leave out base_model_revision"),
        ("base_model=base", "leave out base_model or layers"),
    ],
)
def test_a_decoder_from_scratch_takes_no_setting_of_a_base(given, message):
    for words in (["mini", *DATA], SCRATCH):
        with pytest.raises(ValueError, match=message):
            parse([*words, f"--{given}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--width=64"], r"width is 64.*also set layers"),
        (["--lora_alpha=32"], r"lora_alpha is 32.*without LoRA: also set lora_r, or leave out lora_alpha"),
        (["--lora_dropout=0.1"], r"lora_dropout is 0\.1.*also set lora_r"),
        (["--lora_target_modules=q_proj"], r"lora_target_modules is \['q_proj'\].*also set lora_r"),
        (["--token_cache=cache"], r"does not read token vectors: leave out token_cache"),
        (
            ["--splits_questions=true", "--token_vectors=true"],
            r"splits_questions needs .*set layers.*base_model 'base'",
        ),
        (["--encoder_weight=1"], r"encoder_weight is 1\.0.*set anchor"),
        (["--encoder_weight=-1", "--anchor=vector"], r"encoder_weight must not be negative.*got -1\.0"),
        (["--emission=one_pass", "--max_query_vectors=2"], r"max_query_vectors is 2.*num_query_vectors \(5\)"),
        (["--prompt_template=Find documents"], r"exactly once, got 'Find documents'"),
        (["--anchored=true", "--anchor=tokens"], r"anchored is the same as anchor 'vector', but anchor is 'tokens'"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_built_on_a_base_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse([*BASE, *words])


@pytest.mark.parametrize("words", [["--stop_score=true"], ["--emission=one_pass"]])
def test_a_model_that_splits_questions_has_neither_stop_score_nor_one_pass(words):
    with pytest.raises(ValueError, match=r"splits_questions needs .*leave out base_model, stop_score and emission"):
        parse([*SCRATCH, "--splits_questions=true", *words])


def test_one_anchor_has_two_spellings_and_one_value():
    spelled = [parse([*BASE, *words]) for words in (["--anchored=true"], ["--anchor=vector"])]
    assert [groups[0].anchor for groups in spelled] == ["vector", "vector"]
    assert settings_of(*spelled[0]) == settings_of(*spelled[1])
    assert parse(BASE)[0].anchor is None


@pytest.mark.parametrize(
    ("words", "reads"),
    [
        (BASE, False),
        ([*BASE, "--anchor=vector"], False),
        ([*BASE, "--token_vectors=true"], True),
        ([*BASE, "--anchor=tokens"], True),
        ([*SCRATCH, "--anchor=vector"], True),
        ([*SCRATCH, "--token_vectors=true"], True),
        (["mini", *DATA], True),
    ],
)
def test_a_token_cache_belongs_to_the_models_that_read_token_vectors(llama, world, words, reads):
    args = parse(words)[0]
    assert args.reads_tokens is reads
    args.base_model = args.base_model and llama
    assert build_model(args, world.store, reads_text=True).config.token_vectors is reads


def test_a_prompt_for_questions_that_are_vectors_is_refused(llama, world):
    args = ModelArguments(base_model=llama, prompt_template="Find {query}")
    with pytest.raises(ValueError, match=r"vectors only: leave out prompt_template"):
        build_model(args, world.store, reads_text=False)
