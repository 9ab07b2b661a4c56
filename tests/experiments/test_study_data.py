"""AmbigQA and QAMPARI in a study, from files in their published formats: one corpus, one index, one store for both."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from amer.offline import MINILM
from experiments import study
from experiments.study_data import StudyData
from experiments.study_runs import training_jobs

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def data(folder) -> dict[str, StudyData]:
    content = yaml.safe_load((study.STUDIES / "paper.yaml").read_text(encoding="utf-8"))
    content |= {"encoder": MINILM, "retrievers": ["BM25", MINILM], "wikipedia": str(FIXTURES / "chunked_wikipedia")}
    ambigqa, qampari = content["datasets"].values()
    nq_open = [str(file) for file in sorted((FIXTURES / "nq_open").iterdir())]
    ambigqa |= {"arguments": {"source": str(FIXTURES / "ambigqa"), "nq_open": nq_open}, "searches": ["BM25", MINILM]}
    qampari |= {"arguments": {"source": str(FIXTURES / "qampari")}}
    loaded = study.Study(**content)
    return {name: StudyData(loaded, name, folder / study.slug(name), Console(quiet=True)) for name in loaded.datasets}


def test_a_training_asked_for_first_finds_its_dataset_and_store(data):
    for job in training_jobs(data["QAMPARI"]).values():
        assert (job.overrides["dataset"] / "train.parquet").is_file()
        assert (job.overrides["store"] / "store.json").is_file()


def test_both_datasets_are_built_on_one_corpus_with_one_store(data, folder):
    for dataset in data.values():
        assert dataset.splits.keys() == {"train", "validation", "test"}
        assert dataset.splits["test"].input_vectors.shape[1] == dataset.store.dim == 384
        assert dataset.splits["test"].target_rows is not None
    assert data["AmbigQA"].store.path == data["QAMPARI"].store.path
    assert {path.name for path in (folder / "wikipedia").iterdir()} >= {"documents", "bm25", "stores"}


def test_the_gold_documents_were_searched_for_as_the_study_says(data):
    built = {name: dataset.folder / "built" / "dataset" / "dataset.json" for name, dataset in data.items()}
    searches = {name: yaml.safe_load(file.read_text())["arguments"]["searches"] for name, file in built.items()}
    assert searches == {"AmbigQA": ["BM25", MINILM], "QAMPARI": ["BM25"]}


def test_bm25_has_the_vectors_of_the_study_s_encoder_behind_it(data):
    assert data["QAMPARI"].store_behind("BM25") is data["QAMPARI"].store
    assert data["QAMPARI"].retriever("BM25").search(["Lio Marsh"], 3)[0][0, 0] >= 0


def test_a_study_without_the_corpus_it_needs_is_refused(data, tmp_path):
    lacking = data["QAMPARI"].study.model_copy(update={"wikipedia": None})
    with pytest.raises(ValueError, match="set `wikipedia` to the folder of its chunks"):
        _ = StudyData(lacking, "QAMPARI", tmp_path / "qampari", Console(quiet=True)).splits
