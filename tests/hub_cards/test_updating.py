"""Writing a card anew: what people wrote stays byte for byte, what was generated is replaced."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard

from amer.hub_cards import model_card, update_card
from amer.hub_cards.updating import BEGIN, END, assemble, split_card
from tests.hub_cards.conftest import a_config

OLD = assemble("tags:\n- amer\n- old\npipeline_tag: old-task", "old text")
NEW = assemble("tags:\n- amer\n- new\npipeline_tag: new-task", "new text")
BLOCK = f"{BEGIN}\n\nnew text\n\n{END}"
RESULT = {"task": {"type": "t"}, "dataset": {"name": "d", "type": "d"}, "metrics": [{"type": "m", "value": 0.5}]}


def metadata(card: str) -> dict:
    return yaml.safe_load(split_card(card)[0].strip().strip("-"))


@pytest.mark.parametrize("existing", [None, "", "  \n"])
def test_where_nothing_was_the_card_is_what_was_generated(existing):
    assert update_card(existing, NEW) == NEW


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("# My model\n\nIt is mine. \t\n\n", "\n\nMore of mine,   with spaces \n"),
        ("\r\n# From Windows\r\n\r\n", "\r\nand on\r\n"),
        ("```\n---\nnot: metadata\n---\n```\n", "ünïcode \u2028 no line end"),
    ],
)
def test_text_outside_the_block_stays_byte_for_byte(before, after):
    front, _ = split_card(OLD)
    existing = f"{front}{before}{BEGIN}\n\nold text\n\n{END}{after}"
    updated = update_card(existing, NEW)
    assert split_card(updated)[1] == f"{before}{BLOCK}{after}"
    assert update_card(updated, NEW) == updated


@pytest.mark.parametrize("existing", ["# Mine\n\nwords", "words\n", "---\nlicense: mit\n---\n# Mine\n\n\n"])
def test_a_card_without_a_block_is_kept_whole_and_the_block_follows(existing):
    updated = update_card(existing, NEW)
    text = split_card(existing)[1]
    assert split_card(updated)[1].startswith(text) and split_card(updated)[1].endswith(f"\n\n{BLOCK}\n")
    assert update_card(updated, NEW) == updated


def test_metadata_that_are_not_generated_stay_and_lists_are_united():
    existing = OLD.replace("---\n", "---\nlicense: mit\ndate: 2026-11-23\nlanguage: [en, de]\n", 1)
    merged = metadata(update_card(existing, NEW))
    assert merged["license"] == "mit" and merged["language"] == ["en", "de"] and str(merged["date"]) == "2026-11-23"
    assert merged["tags"] == ["amer", "old", "new"] and merged["pipeline_tag"] == "new-task"
    assert metadata(update_card("---\ntags: mine\n---\n", NEW))["tags"] == ["mine", "amer", "new"]


def test_metadata_that_do_not_change_stay_as_they_were_typed():
    existing = update_card("---\n# a comment\nlicense:   'mit'\n---\n", NEW)
    typed = existing.replace("license: mit", "# a comment\nlicense:   'mit'")
    assert update_card(typed, NEW) == typed != existing


def test_results_of_others_stay_and_generated_ones_are_replaced(report):
    generated = model_card(a_config(), "org/amer", report=report)
    theirs = {**RESULT, "source": {"name": "a leaderboard", "url": "https://example.org"}}
    existing = ModelCard(generated)
    data = metadata(generated)
    data["model-index"][0]["results"] = [{**RESULT, "source": {"name": "hub_cards", "url": "x"}}, theirs, RESULT]
    existing = f"---\n{yaml.safe_dump(data)}---\n"
    ours = metadata(generated)["model-index"][0]["results"]
    updated = update_card(existing, generated)
    assert metadata(updated)["model-index"] == [{"name": "amer", "results": [*ours, theirs, RESULT]}]
    assert len(ModelCard(updated).data.eval_results) == len(ModelCard(generated).data.eval_results) + 2
    without = metadata(update_card(existing, model_card(a_config(), "org/amer")))
    assert without["model-index"] == [{"name": "amer", "results": [theirs, RESULT]}]


def test_stale_results_go_when_there_are_none_any_more(report):
    with_results, without = model_card(a_config(), "org/amer", report=report), model_card(a_config(), "org/amer")
    assert "model-index" not in metadata(update_card(with_results, without))


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        (f"{BEGIN}\nhalf", "1 times .* and 0 times"),
        (f"half\n{END}", "0 times .* and 1 times"),
        (f"{END}{BEGIN}", "in this order"),
        (f"{BEGIN}{END}{BEGIN}{END}", "2 times"),
        ("---\ntags: [a\n---\n", "not valid YAML"),
        ("---\n- a\n---\n", "must be a YAML mapping, got list"),
        ("---\nmodel-index: 3\n---\n", "model-index"),
        ("---\nmodel-index:\n- name: a\n---\n", "model-index"),
    ],
)
def test_a_card_that_cannot_be_understood_is_refused(existing, message):
    with pytest.raises(ValueError, match=message):
        update_card(existing, NEW)


def test_a_card_does_not_quote_its_own_marks():
    with pytest.raises(ValueError, match="cannot quote"):
        model_card(a_config(prompt_template=f"{{query}} {END}"), "org/amer")


def test_a_model_of_every_weight_does_not_keep_the_base_of_the_adapter_it_replaces():
    adapter = assemble("base_model: org/base\nbase_model_relation: adapter\nlicense: mit", "old")
    assert metadata(update_card(adapter, NEW)).keys() == {"license", "tags", "pipeline_tag"}
    by_hand = "---\nbase_model: org/mine\n---\nwords\n"
    assert metadata(update_card(by_hand, NEW))["base_model"] == "org/mine"
