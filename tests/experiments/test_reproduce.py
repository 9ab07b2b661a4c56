"""Every figure and table from a tiny study: real WordNet, BM25 and MiniLM; tiny decoders, trained for two steps."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import yaml
from rich.console import Console

from amer.data.wordnet import query_lemmas, read_extract
from amer.evaluation import mrecall_at_k
from amer.evaluation.runs import Run
from amer.trainer import run as training
from experiments import reproduce, study, study_data, study_runs, synthetic

pytestmark = pytest.mark.slow

TRAINING = {
    "anchored": True,
    "num_query_vectors": 2,
    "max_targets": 4,
    "lora_r": 2,
    "objective": "matched",
    "num_random_negatives": 4,
    "max_steps": 2,
    "per_device_train_batch_size": 8,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
}
VECTORS = {**TRAINING, "anchored": False, "lora_r": None, "num_query_vectors": 5, "max_targets": None}
SIZES = {"num_train": 40, "num_validation": 12, "num_test": 100, "corpus_size": 900}


class KeywordChat:
    """Answers with a list, but in prose for every third question."""

    name = "keywords"

    def __init__(self) -> None:
        self.asked = 0

    def reply(self, prompts):
        first, self.asked = self.asked, self.asked + len(prompts)
        prose = "I am afraid that I do not know of any keywords for a question like this one."
        return [prose if number % 3 == 2 else "a, b" for number in range(first, self.asked)]


def train_here(jobs, console, parallel):
    """Trains in this process what is not trained yet."""
    for job in jobs:
        if not (job.output / "trainer_state.json").is_file():
            options = {"output_dir": job.output, "disable_tqdm": True, **job.overrides}
            training.main(
                [str(job.config), *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
            )


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, llama):
    """The output folder of `all`, what the terminal showed, and the chat model that was asked."""
    folder = tmp_path_factory.mktemp("reproduce")
    for name, content in (("text", TRAINING), ("vectors", VECTORS)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    shipped = yaml.safe_load((study.STUDIES / "wordnet_senses.yaml").read_text(encoding="utf-8"))
    senses = {"builder": "wordnet", "arguments": SIZES, "training": str(folder / "text.yaml"), "num_query_vectors": 2}
    tiny = {
        **shipped,
        "datasets": {"Senses": senses},
        "base_models": {f"Llama {layers}": {"name": llama, "layers": layers} for layers in (None, 1)}
        | {"Llama again": {"name": llama}, "Llama third": {"name": llama}},
        "seeds": [1],
        "synthetic": {
            "training": str(folder / "vectors.yaml"), "dim": 8, "num_train": 20, "num_test": 10, "corpus_size": 200,
        },
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False), encoding="utf-8")
    chat, console = KeywordChat(), Console(record=True, width=200, file=io.StringIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "STUDIES", folder)
        patch.setattr(study_data.StudyData, "_chat", chat)
        patch.setattr(study_runs, "run_all", train_here)
        patch.setattr(synthetic, "run_all", train_here)
        patch.setattr(reproduce, "Console", lambda: console)
        reproduce.main(["all", "--dataset", "tiny", "--output", str(folder)])
        yield folder / "tiny", console.export_text(clear=False), chat


def test_every_artefact_is_there(reproduced):
    folder, _, _ = reproduced
    results = {file.name for file in (folder / "results").iterdir()}
    tables = {f"table{number}.{ending}" for number in (1, 2, 3, 5, 6, 7, 8) for ending in ("json", "md", "tex")}
    figures = {f"figure{number}.{ending}" for number in (3, 4, 5, 6) for ending in ("json", "png")}
    others = {"figure1.json", "figure1-senses.png", "baselines.json", "baselines.md", "baselines.tex"}
    assert results == tables | figures | others


def test_the_numbers_say_what_they_were_made_with(reproduced):
    content = json.loads((reproduced[0] / "results" / "table2.json").read_text())
    assert content["study"] == "tiny"
    assert {"torch", "transformers"} <= content["versions"].keys()
    assert content["machine"] and content["date"]


def test_tables_5_to_8_are_of_the_four_base_models_in_order(reproduced):
    for number, name in zip(range(5, 9), ("Llama None", "Llama 1", "Llama again", "Llama third"), strict=True):
        table = (reproduced[0] / "results" / f"table{number}.md").read_text()
        assert table.startswith(f"Results with {name} as base model")


def test_a_training_has_the_seed_base_model_and_fields_of_its_name(reproduced, tmp_path):
    loaded = study.load_study("tiny").model_copy(
        update={"seeds": [3, 5], "overrides": {"logging_steps": 7}, "single_query": {"num_random_negatives": 1}}
    )
    data = study_data.StudyData(loaded, "Senses", reproduced[0] / "senses", Console())
    jobs = study_runs.training_jobs(data)
    assert len({job.output for job in jobs.values()}) == len(jobs) == 4 * 3 * 2
    for (base, system, seed), job in jobs.items():
        fields = job.overrides
        assert fields["seed"] == seed
        assert fields["base_model"].endswith("-1") == (base == "Llama 1")
        assert fields["logging_steps"] == 7
        assert fields["num_query_vectors"] == (1 if system == "Single-Query" else 2)
        assert fields.get("num_random_negatives") == (1 if system == "Single-Query" else None)
        assert fields.get("scheduled_sampling") == ("always_predicted" if system == "Always Predicted" else None)


def test_a_table_holds_the_figures_of_its_base_model_s_saved_runs(reproduced):
    folder, _, _ = reproduced
    store = study_data.DocumentStore.open(next((folder / "senses" / "stores").iterdir()))
    test = study_data.load_dataset_dir(folder / "senses" / "dataset")["test"].link(store)
    numbers = json.loads((folder / "results" / "table6.json").read_text())["numbers"]
    for system in ("AMER", "+Re-ranking"):
        trained = "amer" if system == "AMER" else "single-query"
        saved = folder / "senses" / "training" / f"llama-1-{trained}-seed-1" / "runs" / study.slug(system)
        expected = mrecall_at_k(Run.load(saved, store).rows, test.target_rows, 100).mean()
        assert numbers["bases"]["Llama 1"]["Senses"][system]["whole"]["mean"] == pytest.approx(expected)


def test_a_base_model_is_not_cut_after_layers_it_does_not_have(llama, tmp_path):
    with pytest.raises(ValueError, match=r"has 2 layers: it cannot be cut after 3"):
        study_runs.decoder_folder(study.Decoder(name=llama, layers=3), tmp_path)


def test_replies_in_prose_are_counted_and_kept(reproduced):
    folder, shown, _ = reproduced
    prose = SIZES["num_test"] // 3
    kept = json.loads((folder / "senses" / "chat" / "keywords.json").read_text())
    assert kept["questions"] == SIZES["num_test"]
    assert len(kept["unusable"]) == prose
    assert kept["unusable"][0]["reply"].startswith("I am afraid")
    assert f"keywords: {prose} of {SIZES['num_test']} questions were answered in prose" in shown


def test_runs_on_other_questions_are_refused(reproduced, tmp_path):
    data = study_data.StudyData(study.load_study("tiny"), "Senses", reproduced[0] / "senses", Console())
    run = study_runs.kept(data, data.folder / "runs", "BM25", None)
    replace(run, query_ids=["other", *run.query_ids[1:]]).save(data.folder / "tests" / "bm25", data.store)
    with pytest.raises(ValueError, match="a run on other questions"):
        study_runs.kept(data, data.folder / "tests", "BM25", None)


def test_every_question_is_asked_of_the_chat_model_once_for_each_purpose(reproduced):
    _, _, chat = reproduced
    assert chat.asked == 2 * SIZES["num_test"]  # keywords, and rewrites


def test_a_run_holds_the_test_questions_of_its_system(reproduced):
    folder, _, _ = reproduced
    data = folder / "senses"
    loaded = study_data.DocumentStore.open(next((data / "stores").iterdir()))
    run = Run.load(data / "training" / "llama-1-amer-seed-1" / "runs" / "amer", loaded)
    assert run.rows.shape == (SIZES["num_test"], 100)
    assert run.query_embeddings.shape == (SIZES["num_test"], 2, 384)
    assert set(run.query_ids) <= set(query_lemmas(read_extract())["test"])


def test_asked_again_nothing_is_trained_or_searched(reproduced, monkeypatch):
    folder, _, _ = reproduced

    def refuse(*_):
        raise RuntimeError("made again")

    before = (folder / "results" / "table8.md").read_text()
    monkeypatch.setattr(training, "main", refuse)
    monkeypatch.setattr(study_runs, "search", refuse)
    reproduce.main(["table8", "baselines", "--dataset", "tiny", "--output", str(folder.parent)])
    assert (folder / "results" / "table8.md").read_text() == before


def test_an_output_folder_of_other_data_is_refused(reproduced):
    folder, _, _ = reproduced
    other = study.load_study("tiny").model_copy(update={"encoder": "org/other", "seeds": [7]})
    with pytest.raises(ValueError, match="made with another encoder"):
        reproduce.check_same_study(folder, other)


def test_an_unknown_artefact_is_refused(capsys):
    with pytest.raises(SystemExit):
        reproduce.parse_arguments(["table4"])
    assert "invalid choice: 'table4'" in capsys.readouterr().err
