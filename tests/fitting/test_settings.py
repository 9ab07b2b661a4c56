"""What can be set, and the commands that do the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from amer.data.compound import HELD_OUT_TEMPLATES
from amer.fitting import Settings
from amer.trainer.parsing import CONFIGS, parse
from amer.trainer.resuming import settings_of


def test_the_commands_of_ones_own_questions():
    settings = Settings(Path("out"), "q.jsonl", "d.jsonl", "some/encoder", None, HELD_OUT_TEMPLATES, 300, 7)
    assert " ".join(settings.dataset_command()) == (
        "dataset own --source q.jsonl --documents d.jsonl --output out/questions"
    )
    assert " ".join(settings.compound_command()) == (
        f"dataset compound --source out/questions --output out/compound --templates {HELD_OUT_TEMPLATES} "
        "--num-train 300 --num-validation 300 --num-test 300"
    )
    assert " ".join(settings.encode_command()) == (
        "corpus encode --documents d.jsonl --output out/store --encoder some/encoder"
    )


def test_without_documents_the_positives_are_the_corpus():
    settings = Settings(Path("out"), "q.jsonl")
    assert "--documents" not in settings.dataset_command() and settings.corpus == "out/questions/documents.parquet"


def test_the_command_of_the_api_reference():
    assert Settings(Path("out"), packages=["json", "csv"]).dataset_command() == (
        "dataset python-api --package json --package csv --output out/questions".split()
    )
    assert Settings(Path("out"), num_train=50_000).held_out == 1_000


def test_both_trainings_are_the_packaged_one_but_for_what_makes_them_differ():
    packaged = yaml.safe_load((CONFIGS / "mini.yaml").read_text())
    amer, one = Settings(Path("out"), train_steps=30).trainings(1_000, 64)
    assert amer.arguments[:2] == one.arguments[:2] == ["train", "mini"]
    assert (amer.steps, amer.steps_per_epoch) == (30, 16)
    values = [settings_of(*parse(training.arguments[1:])) for training in (amer, one)]
    differing = {name for name in values[0] if values[0][name] != values[1][name]}
    assert differing == {"splits_questions", "max_query_vectors", "objective", "encoder_weight"}
    assert values[0]["max_steps"] == 30 and values[0]["dataset"] == "out/compound/dataset"
    same = {"layers", "width", "anchor", "num_query_vectors", "temperature", "span_weight", "learning_rate"}
    assert all(values[0][name] == packaged[name] for name in same)


def test_a_small_corpus_has_as_many_negatives_as_documents():
    trainings = Settings(Path("out")).trainings(1_000, 18)
    assert [parse(training.arguments[1:])[2].num_random_negatives for training in trainings] == [18, 18]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"documents": "d.jsonl"}, "also give questions"),
        ({"questions": "q.jsonl", "packages": ["json"]}, "leave out packages"),
        ({"num_train": 0}, "num_train must be at least 1, got 0"),
        ({"train_steps": -1}, "train_steps must be at least 1, got -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(Path("out"), **options)
