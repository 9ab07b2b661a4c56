"""The model card: true to what was run, whole with whatever is known, and usable by a reader who has nothing else."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoTokenizer

from amer.baselines.splitting import TOLD
from amer.corpus import DocumentEncoder, write_store
from amer.evaluation.report import metric_label
from amer.hub import files_to_push
from amer.hub_cards import model_card, write_model_card
from amer.hub_cards.updating import BEGIN, END
from amer.search import ExactIndex, trained_fusion
from modeling_amer import AMERConfig
from tests.conftest import build_splitting
from tests.hub_cards.conftest import BASE, DIM, ENCODER, FULL, REVISION, VECTORS_ONLY, a_config

REPO = "org/amer-tiny"
KINDS = {
    "adapter": {},
    "anchored": {"anchored": True},
    "mixture": {"anchored": True, "objective": "mixture", "loss_temperature": 0.02},
    "one vector": {"num_query_vectors": 1},
    "full": FULL,
    "vectors only": VECTORS_ONLY,
    "no encoder": {"document_encoder": None, "anchored": True},
    "mini": {**VECTORS_ONLY, "anchor": "tokens", "stop_score": True, "max_query_vectors": 4},
    "one pass": {**VECTORS_ONLY, "emission": "one_pass", "max_query_vectors": 4},
    "splits": {**VECTORS_ONLY, "anchor": "tokens", "splits_questions": True, "max_query_vectors": 4},
    "local folders": {
        "base_model_name_or_path": "/root/secret/base",
        "document_encoder": {"name": "./secret/encoder"},
    },
}
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "example_model_card.md"


def body(card: str) -> str:
    return card.partition(BEGIN)[2]


def rows(card: str, heading: str) -> dict[str, list[str]]:
    """The cells of the first table after a text, by the first of each row."""
    lines = card[card.index(heading) :].splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| "))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip(" *") for cell in line.strip("|").split(" | ")])
    return {cells[0]: cells[1:] for cells in table[2:]}


# ----------------------------------------------------------------------------------------------------------- rendering


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", ["nothing", "training", "report", "both"])
def test_a_card_of_every_kind_has_no_gaps(kind, known, training, report):
    card = model_card(
        a_config(**KINDS[kind]),
        REPO,
        training if known in ("training", "both") else None,
        report if known in ("report", "both") else None,
    )
    text = body(card)
    assert ("## Training" in text, "## Results" in text) == (
        known in ("training", "both"),
        known in ("report", "both"),
    )
    assert not re.search(r"\bNone\b|\bN/A\b|n/a|[Uu]ndefined|\{\{|\{%|More Information", text)
    assert "\n\n\n" not in text
    sections = re.split(r"^## .*$", re.sub(r"^```.*?^```$", "code", text, flags=re.DOTALL | re.MULTILINE), flags=re.M)
    assert all(section.strip() for section in sections)  # no heading without a word below it
    assert "secret" not in card and not re.search(r"(/root|/home|/data)/", card)  # nobody's disk


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_paragraph_tells_it_from_late_interaction(kind):
    title, first = body(model_card(a_config(**KINDS[kind]), REPO)).split("\n\n")[1:3]
    assert title == "# amer-tiny"
    assert all(words in first for words in ("not late interaction", "ColBERT", "MaxSim", "one vector"))
    assert ("3 query vectors" in first) == (kind not in ("one vector", "mini", "splits"))
    assert ("one to 4 query vectors" in first) == (kind == "mini")
    assert ("a query vector for each part, at most 4" in first) == (kind == "splits")
    assert ("one after another" in first) == (kind not in ("one vector", "one pass", "splits"))
    assert ("all in one pass" in first) == (kind == "one pass")


@pytest.mark.parametrize(("m", "other"), [(1, None), (2, 1), (3, 2)])
def test_the_card_names_another_number_of_vectors_only_if_the_model_can_emit_it(m, other):
    card = model_card(a_config(**VECTORS_ONLY, emission="one_pass", num_query_vectors=m), REPO)
    found = re.search(r"num_query_vectors=(\d)\)` returns another number", card)
    assert (found and int(found[1])) == other


def test_what_the_model_is_stands_in_the_card():
    card = model_card(a_config(anchored=True), REPO)
    facts = rows(card, "|  |  |")
    assert facts["Base model"] == [f"[{BASE}](https://huggingface.co/{BASE}) at `{REVISION}`"]
    assert facts["Document encoder"] == ["[org/encoder](https://huggingface.co/org/encoder), frozen"]
    assert facts["Prompt of documents"] == ["`passage: `"] and facts["Prompt of questions"] == ["`query: `"]
    assert "anchored" in facts["Reads"][0]
    assert facts["Writes"] == [f"3 unit vectors of {DIM} values"]
    assert facts["Trained weights"][0].startswith("LoRA (rank 4, alpha 8) of q_proj, k_proj")
    assert facts["Objective"][0].endswith("temperature 0.05") and "Hungarian" in facts["Objective"][0]
    assert facts["Fusion of the lists"][0].startswith("round-robin")
    assert "```\n<|user|>\n{query}\n<|assistant|>\n\n```" in card


def test_a_mixture_is_fused_as_it_was_trained():
    facts = rows(model_card(a_config(**KINDS["mixture"]), REPO), "|  |  |")
    assert "mixture" in facts["Objective"][0] and facts["Objective"][0].endswith("temperature 0.02")
    assert facts["Fusion of the lists"][0].startswith("logsumexp") and "0.02" in facts["Fusion of the lists"][0]


def test_a_model_merged_from_lora_is_not_called_fully_trained(training):
    def weights(lora: dict | None) -> str:
        return rows(model_card(a_config(**FULL), REPO, {**training, "lora": lora}), "|  |  |")["Trained weights"][0]

    assert weights({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}).endswith("merged into the decoder here")
    assert weights(None).startswith("the whole decoder")
    assert "Trained weights" not in model_card(a_config(**FULL), REPO)  # nobody knows


def test_a_prompt_of_backticks_stays_in_its_block():
    prompt = "```\n\n\n{query}\n```"
    assert f"````\n{prompt}\n````" in model_card(a_config(prompt_template=prompt), REPO)


def test_what_only_an_adapter_has_is_not_said_of_a_full_model():
    adapter, full = model_card(a_config(), REPO), model_card(a_config(**FULL), REPO)
    assert "PEFT" in adapter and "base_model_name_or_path=" in adapter
    assert "PEFT" not in full and "base_model_name_or_path=" not in full


# ------------------------------------------------------------------------------------------------------------- figures


def test_the_figures_of_the_card_are_those_of_the_report(report):
    card = model_card(a_config(), REPO, report=report)
    for subset, heading in (("whole", "Means over 60"), ("low_similarity", "The low similarity third, 20")):
        table = rows(card, heading)
        assert list(table) == list(report["systems"])
        for name, system in report["systems"].items():
            means = [f"{100 * metric[subset]['mean']:.2f}" for metric in system["metrics"].values()]
            assert table[name] == [
                str(system["searches_per_query"]), f"{1000 * system['seconds_per_query']:.1f}", *means
            ]  # fmt: skip
    assert "| **AMER, m = 3** | **3** | **12.5** |" in card
    assert "3 searches of the index and 12.5 ms" in card


def test_differences_intervals_and_p_values_are_those_of_the_report(report):
    card = model_card(a_config(), REPO, report=report)
    lines = [line.strip("| ").split(" | ") for line in card[card.index("| Against |") :].splitlines()[2:6]]
    assert [line[:2] for line in lines] == [
        [reference, metric] for reference in report["references"] for metric in ("Recall@10", "MRecall@10")
    ]
    metrics = {metric_label(name): subsets for name, subsets in report["systems"]["AMER, m = 3"]["metrics"].items()}
    for reference, metric, *cells in lines:
        for subset, (difference, p) in zip(("whole", "low_similarity"), (cells[:2], cells[2:]), strict=True):
            test = metrics[metric][subset]["against"][reference]
            numbers = [float(number) for number in re.findall(r"[+-][\d.]+", difference)]
            assert numbers == [round(100 * test[key], 2) for key in ("difference", "low", "high")]
            assert p == f"{test['p_value']:.4f}"


def test_a_cheaper_system_that_reaches_more_is_recommended_instead(report):
    card = model_card(a_config(), REPO, report=report)
    mean = report["systems"]["trained alone"]["metrics"]["mrecall@10"]["whole"]["mean"]
    assert f"`trained alone` reaches MRecall@10 {100 * mean:.2f} with 1 search a query" in card
    assert "In the evaluation above" not in model_card(a_config(), REPO, report=report, system="trained alone")


def test_a_system_that_knows_the_true_parts_is_not_recommended(report):
    told = copy.deepcopy(report)
    told["systems"][TOLD] = copy.deepcopy(told["systems"]["AMER, m = 3"]) | {"searches_per_query": 2.5}
    assert "`trained alone` reaches" in model_card(a_config(), REPO, report=told)
    del told["systems"]["trained alone"]
    told["references"] = ["off-the-shelf"]
    card = model_card(a_config(), REPO, report=told)
    assert f"| {TOLD} | 2.5 |" in card and "In the evaluation above" not in card


def test_times_that_were_not_measured_leave_no_column(report):
    untimed = json.loads(json.dumps(report).replace("0.0125", "null").replace("0.0045", "null"))
    card = model_card(a_config(), REPO, report=untimed)
    assert "| System | Searches | Recall@10 |" in card and " ms" not in body(card)


@pytest.mark.parametrize("system", ["AMER, m = 7", None])
def test_a_report_must_know_the_system(report, system):
    metadata = {name: value for name, value in report["metadata"].items() if name != "system"}
    with pytest.raises(ValueError, match=r"system=.*'trained alone'"):
        model_card(a_config(), REPO, report={**report, "metadata": metadata}, system=system)


# ------------------------------------------------------------------------------------------------------------ training


def test_the_training_is_told_as_it_was(training):
    card = model_card(a_config(), REPO, training)
    for words in (
        f"- Questions: [org/senses](https://huggingface.co/datasets/org/senses) at `{REVISION}`, WordNet 3.0, "
        "licence: WordNet License, built by `amer.data.wordnet 0.1.0`",
        "- Documents: 25,000 in all",
        "| train | 5,000 | 13,959 | 12,936 |",
        "- 80 steps (0.51 epochs)",
        "- Effective batch: 32 questions (16 in each of 2 processes",
        "8,241 to 8,257 documents",
        "checkpoint of step 40, the best on validation (Recall@10 62.50%)",
        "- Hardware: Toaster 9000, 2 cores",
        "- Time: 6 min 7 s",
        "- Finished: 2026-11-23",
        "| `learning_rate` | 0.001 |",
        "Versions: python 3.11.7, torch 2.13.0.",
        "2,904,576 of 137,419,776 parameters",
        "![Loss and validation over the training steps](images/training.png)",
    ):
        assert words in card, words
    assert "max_targets" not in card  # nothing was set


@pytest.mark.parametrize(
    "gone", ["dataset", "store", "seconds", "best", "batch", "settings", "log_history", "versions"]
)
def test_what_a_record_does_not_know_is_left_out(training, gone):
    whole = body(model_card(a_config(), REPO, training))
    less = body(model_card(a_config(), REPO, {name: value for name, value in training.items() if name != gone}))
    assert len(less) < len(whole) and "None" not in less and "\n\n\n" not in less


def test_a_record_of_nothing_is_no_error():
    assert "## Training" not in body(model_card(a_config(), REPO, {}))


# ------------------------------------------------------------------------------------------------------------ metadata


@pytest.mark.parametrize("kind", KINDS)
def test_the_metadata_come_back_as_they_were_written(kind, training, report, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(model_card(a_config(**KINDS[kind]), REPO, training, report))
    data = ModelCard.load(path).data
    assert data.library_name == "transformers" and data.pipeline_tag == "sentence-similarity"
    assert data.model_name == "amer-tiny" and "amer" in data.tags and data.datasets == ["org/senses"]
    metrics = report["systems"]["AMER, m = 3"]["metrics"]
    assert {(result.metric_type, result.metric_name): result.metric_value for result in data.eval_results} == {
        (name, f"{metric_label(name)}{suffix}"): subsets[subset]["mean"]
        for name, subsets in metrics.items()
        for subset, suffix in (("whole", ""), ("low_similarity", ", low similarity third"))
    }
    assert {(result.dataset_name, result.dataset_split) for result in data.eval_results} == {("Tiny senses", "test")}
    known = kind not in ("vectors only", "local folders", "mini", "one pass", "splits")
    relation = "finetune" if kind == "full" else "adapter"
    assert (data.base_model, data.get("base_model_relation")) == ((BASE, relation) if known else (None, None))
    assert data.license is None  # nobody said
    again = ModelCard(str(ModelCard.load(path)))
    assert again.data.eval_results == data.eval_results and again.data.to_dict() == data.to_dict()


def test_without_a_report_there_is_no_model_index():
    metadata = ModelCard(model_card(a_config(), REPO)).data
    assert metadata.eval_results is None and "model-index" not in metadata.to_dict()


def test_a_dataset_on_the_hub_is_named_in_the_results(report):
    metadata = {**report["metadata"], "dataset_id": "org/senses"}
    (result, *_) = ModelCard(model_card(a_config(), REPO, report={**report, "metadata": metadata})).data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("org/senses", "Tiny senses")


def test_the_results_lie_in_the_form_of_the_hubs_leaderboards(tmp_path, report):
    hub = pytest.importorskip("huggingface_hub._eval_results", reason="needs a newer huggingface_hub")
    path = tmp_path / ".eval_results" / "amer.yaml"
    write_model_card(tmp_path, a_config(), REPO, report=report)
    assert not path.exists()  # the dataset is not on the Hub
    named = {**report, "metadata": {**report["metadata"], "dataset_id": "org/senses"}}
    write_model_card(tmp_path, a_config(), REPO, report=named)
    written = yaml.safe_load(path.read_text())
    entries = hub.parse_eval_result_entries(written)
    assert hub.eval_result_entries_to_yaml(entries) == written
    metrics = report["systems"]["AMER, m = 3"]["metrics"]
    assert {(entry.dataset_id, entry.task_id): entry.value for entry in entries} == {
        ("org/senses", name): subsets["whole"]["mean"] for name, subsets in metrics.items()
    }
    assert {entry.notes for entry in entries} == {"split test, 60 queries, 3 searches a query"}
    assert ".eval_results/amer.yaml" in files_to_push(tmp_path)


def test_the_widget_asks_an_example():
    (example,) = ModelCard(model_card(a_config(), REPO)).data.widget
    assert example["source_sentence"] == "bank" and len(example["sentences"]) == 3
    assert ModelCard(model_card(a_config(**KINDS["vectors only"]), REPO)).data.get("widget") is None


def test_the_citation_is_that_of_the_project():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"][0]
    card = model_card(a_config(), REPO)
    assert f"title   = {{{paper['title']}}}" in card
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"author  = {{{authors}}}" in card and f"url     = {{{paper['url']}}}" in card
    assert f"year    = {{{paper['year']}}}" in card


# -------------------------------------------------------------------------------------------------------------- folder


def test_the_files_of_the_model_are_listed_with_their_sizes(saved, training, report):
    folder, model, _ = saved()
    write_model_card(folder, model.config, REPO, training, report)
    files = rows((folder / "README.md").read_text(), "## Files")
    there = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    listed = [path for name in files for pattern in re.findall("`(.*?)`", name) for path in folder.glob(pattern)]
    assert sorted(listed) == sorted(there) and all(size for size, _ in files.values())
    assert files["`model.safetensors`"][0] == f"{(folder / 'model.safetensors').stat().st_size / 1000:.1f} kB"
    assert files["in all"][0] == f"{sum(path.stat().st_size for path in there) / 1000:.1f} kB"


def test_pictures_are_drawn_of_what_there_is(tmp_path, training, report):
    write_model_card(tmp_path / "none", a_config(), REPO)
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["README.md"]
    write_model_card(tmp_path / "both", a_config(), REPO, training, report)
    assert {path.name for path in (tmp_path / "both" / "images").iterdir()} == {"training.png", "by_diversity.png"}
    for image in re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "both" / "README.md").read_text()):
        assert (tmp_path / "both" / image).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    short = {**training, "log_history": training["log_history"][:1]}
    write_model_card(tmp_path / "short", a_config(), REPO, short)
    assert not (tmp_path / "short" / "images").exists() and "![" not in (tmp_path / "short" / "README.md").read_text()


def test_a_card_that_cannot_be_made_leaves_the_folder_as_it_was(tmp_path, report, training):
    (tmp_path / "README.md").write_text(f"{BEGIN} and no end")
    with pytest.raises(ValueError, match="one of each"):
        write_model_card(tmp_path, a_config(), REPO, training, report)
    with pytest.raises(ValueError, match="choose one of its systems"):
        write_model_card(tmp_path, a_config(), REPO, training, report, system="nobody")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == f"{BEGIN} and no end"


def test_written_twice_it_is_the_same(tmp_path, training, report):
    (tmp_path / "README.md").write_bytes(b"Mine.\r\n")
    path = write_model_card(tmp_path, a_config(), REPO, training, report)
    first = path.read_bytes()
    write_model_card(tmp_path, a_config(), REPO, training, report)
    assert path.read_bytes() == first and b"\nMine.\r\n" in first


def test_a_card_from_elsewhere_is_written_around(tmp_path):
    (tmp_path / "README.md").write_text("of this folder\n")
    path = write_model_card(tmp_path, a_config(), REPO, existing="of the Hub\n")
    assert "of the Hub\n" in path.read_text() and "of this folder" not in path.read_text()


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="is rendered from a real run")
def test_the_example_in_the_documentation_is_a_card_of_this_kind():
    card = EXAMPLE.read_text()
    assert card.count(BEGIN) == card.count(END) == 1
    assert ModelCard(card).data.eval_results and "## Training" in card and "## Results" in card
    images = re.findall(r"!\[.*?\]\((.*?)\)", card)
    assert len(images) == 2 and all((EXAMPLE.parent / image).is_file() for image in images)


# --------------------------------------------------------------------------------------------------------- the snippet


def python_blocks(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"anchored": True},
        {"anchored": True, "num_query_vectors": 1},
        {"lora": None},
        {"reads_text": False, "lora": None},
        {"reads_text": False, "anchored": True, "lora": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("objective", ["matched", "mixture"])
def test_the_snippet_finds_what_the_model_finds(saved, capsys, tmp_path, kind, objective):
    folder, model, encoder = saved(objective=objective, **kind)
    *asked, snippet = python_blocks(model_card(model.config, REPO))
    assert len(asked) == model.config.reads_text
    for block in asked:
        assert vectors_asked(block, folder, encoder).shape == (model.config.num_query_vectors, DIM)
    names: dict[str, Any] = {}
    exec(snippet.replace(REPO, str(folder)).replace(ENCODER["name"], str(encoder)), names)
    assert names["query_embeddings"].shape == (2, model.config.num_query_vectors, DIM)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert names["found"] == found_by_the_project(names, model.config, tmp_path / "store")
    if model.config.reads_text:
        project = DocumentEncoder(**ENCODER, model_path=encoder, device="cpu")
        texts = [{"title": "", "text": text} for text in names["documents"]]
        np.testing.assert_allclose(names["document_vectors"], project.encode_documents(texts), atol=1e-6)
        anchors = project.encode_queries(names["questions"])
        np.testing.assert_allclose(names.get("anchors", anchors), anchors, atol=1e-6)


def vectors_asked(block: str, folder: Path | str, encoder: Path | str) -> Any:
    """What the first lines of a card give."""
    names: dict[str, Any] = {}
    exec(block.replace(REPO, str(folder)).replace(ENCODER["name"], str(encoder)), names)
    return names["vectors"]


@pytest.mark.parametrize("kind", ["adapter", "anchored", "full", "mini", "splits"])
def test_the_first_lines_ask_one_question(kind):
    text = body(model_card(a_config(**KINDS[kind]), REPO)).strip()
    assert text.splitlines()[3:5] == ["", "```python"]
    (block, *_) = python_blocks("\n".join(text.splitlines()[: 13 if kind == "anchored" else 11]) + "\n")
    assert f'AutoModel.from_pretrained("{REPO}", trust_remote_code=True)' in block and "encode_query(" in block


def test_the_snippets_of_a_model_that_splits_questions_run(tiny_encoder, tmp_path, capsys):
    pytest.importorskip("sentence_transformers")
    question = "a river bank, and a coil of metal"
    model = build_splitting(tiny_encoder, {question: [[0, 12], [18, 33]], "spring": [[0, 6]]})
    model.save_pretrained(tmp_path / "model")
    config = copy.deepcopy(model.config)
    config.document_encoder = ENCODER
    ask, snippet = python_blocks(model_card(config, REPO))
    assert vectors_asked(ask, tmp_path / "model", tiny_encoder).shape == (2, DIM)
    names: dict[str, Any] = {}
    exec(snippet.replace(REPO, str(tmp_path / "model")).replace(ENCODER["name"], tiny_encoder), names)
    assert [vectors.shape for vectors in names["query_embeddings"]] == [(2, DIM), (1, DIM)]
    assert len(capsys.readouterr().out.splitlines()) == 2
    expected = model.encode_query([question, "spring"], num_query_vectors="auto").query_embeddings
    np.testing.assert_allclose(names["query_embeddings"][0], expected[0, :2], atol=1e-5)


def found_by_the_project(names: dict[str, Any], config: AMERConfig, folder: Path) -> list[int]:
    """What the project's own index and fusion find for the snippet's last question."""
    ids = [str(number) for number in range(len(names["document_vectors"]))]
    documents = pa.table({"id": ids, "title": ids, "text": ids})
    store = write_store(folder, documents, names["document_vectors"], {"name": "any"}, dtype="float32")
    queries, k = names["query_embeddings"][-1:], names["k"]
    rows, scores = ExactIndex(store).search(queries, k)
    fusion = trained_fusion(config.objective, config.loss_temperature)
    return fusion(rows, scores, k, queries, store).rows[0].tolist()


def test_every_other_call_in_the_card_works(saved, llama, tmp_path):
    folder, model, _ = saved()
    card = model_card(model.config, REPO)
    calls = re.findall(r"`((?:AutoModel|AutoTokenizer|PeftModel)\.from_pretrained\([^`]*\))`", card)
    assert [call.partition(".")[0] for call in calls] == ["AutoModel", "AutoTokenizer", "PeftModel"]
    peft = pytest.importorskip("peft")
    known = {"AutoModel": AutoModel, "AutoTokenizer": AutoTokenizer, "PeftModel": peft.PeftModel, "model": model}
    known["base"] = AutoModel.from_pretrained(llama)
    here = {REPO: str(folder), '"adapter"': repr(str(tmp_path / "adapter"))}
    (export,) = re.findall(r"`(model\.export_peft\([^`]*\))`", card)
    loaded = []
    for call in (export, *calls):
        for name, path in here.items():
            call = call.replace(name, path)
        loaded.append(eval(call, known))
    loaded = loaded[1:]
    assert loaded[0].config.num_query_vectors == 3
    assert loaded[1]("question")["input_ids"] == model.tokenizer("question")["input_ids"]
    trained = loaded[2].get_base_model().state_dict()
    assert all(trained[key].equal(value) for key, value in model.backbone.state_dict().items())
