"""A study's YAML file: what is in it is checked, and the shipped ones are whole."""

from __future__ import annotations

import pytest
import yaml

from experiments import study
from experiments.study import Study, load_study
from experiments.training_jobs import ROOT

SHIPPED = sorted(path.stem for path in study.STUDIES.glob("*.yaml"))


@pytest.fixture
def content() -> dict:
    """The shipped study of WordNet senses, as a mapping to break."""
    return yaml.safe_load((study.STUDIES / "wordnet_senses.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_names_trainings_that_are_there(name):
    loaded = load_study(name)
    files = [dataset.training for dataset in loaded.datasets.values()] + [loaded.synthetic.training]
    assert all((ROOT / file).is_file() for file in files)


def test_the_paper_s_study_is_the_paper_s():
    paper = load_study("paper")
    assert paper.encoder == "infly/inf-retriever-v1-1.5b"
    assert list(paper.datasets) == ["AmbigQA", "QAMPARI"]
    assert [dataset.num_query_vectors for dataset in paper.datasets.values()] == [2, 5]
    assert [decoder.name for decoder in paper.base_models.values()] == [
        "meta-llama/Llama-3.1-8B-Instruct",  # Table 5
        "Qwen/Qwen3-4B-Instruct-2507",  # Table 6
        "meta-llama/Llama-3.2-3B-Instruct",  # Table 7
        "meta-llama/Llama-3.2-1B-Instruct",  # Table 8
    ]
    assert len(paper.seeds) == 3
    sizes = paper.synthetic
    assert (sizes.dim, sizes.num_train, sizes.num_test, sizes.corpus_size) == (1024, 20_000, 1_000, 200_000)


def test_an_unknown_study_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no study 'wordnet'.*wordnet_senses"):
        load_study("wordnet")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", 0, "Extra inputs are not permitted"),
        ("seeds", [0, 0], "repeat"),
        ("seeds", [], "at least 1"),
        ("base_models", {"one": {"name": "org/one"}}, "at least 4"),
        ("datasets", {}, "at least 1"),
        ("retrievers", ["BM25", "BM25"], "repeat"),
        ("retrievers", ["BM25"], "must be among the retrievers"),
        ("overrides", {"seed": 1}, "the study sets them itself"),
        ("overrides", {"eval_ks": [1, 10]}, "overrides"),
        ("base_models", {name: {"name": "org/one"} for name in ("A B", "a-b", "c", "d")}, "must differ"),
        ("base_models", {name: {"name": "org/one"} for name in ("a", "b", "c", "???")}, "must differ"),
    ],
)
def test_a_field_that_does_not_fit_is_refused(content, field, value, message):
    with pytest.raises(ValueError, match=message):
        Study(**{**content, field: value})


def test_an_encoder_that_cannot_be_used_is_refused_before_anything_is_made(content):
    for name, message in (("nvidia/NV-Embed-v2", "cannot be used"), ("infly/inf-retriever-v1", "trust_remote_code")):
        with pytest.raises(ValueError, match=message):
            Study(**{**content, "retrievers": [*content["retrievers"], name]})


def test_a_file_that_is_no_study_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STUDIES", tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.yaml must hold a mapping, got list"):
        load_study("list")
    (tmp_path / "half.yaml").write_text("encoder: org/encoder\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"half.yaml does not describe a study(.|\n)*base_models"):
        load_study("half")
