"""The command line of training: what it reads, what it refuses, what it leaves behind, and how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import load_file

from amer import locks
from amer.corpus import DocumentEncoder, DocumentStore, write_store
from amer.data import RetrievalDataset, load_dataset_dir, save_dataset_dir
from amer.data.question_vectors import add_question_vectors
from amer.trainer import run
from amer.trainer.parsing import CONFIGS, parse
from amer.trainer.resuming import settings_of
from modeling_amer import AMERModel
from tests.conftest import DIM, tiny_tokenizer

ROOT = Path(__file__).parents[1]
ENCODER = {"name": "hand-made", "revision": None, "document_prompt": "", "query_prompt": ""}
REQUIRED = ["--base_model", "some/base", "--dataset", "some/dataset", "--store", "some/store"]
OPTIONS = {
    "per_device_train_batch_size": 4,
    "max_steps": 6,
    "learning_rate": 1e-2,
    "num_query_vectors": 2,
    "num_random_negatives": 2,
    "eval_ks": [2, 10],
    "lora_r": 4,
    "lora_dropout": 0.1,  # draws random numbers, which a resumed run has to draw as well
    "lora_target_modules": ["q_proj", "v_proj"],
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}
WITHOUT_LORA = {"lora_r": None, "lora_dropout": None, "lora_target_modules": None}
# train.py as it is, killed in the sixth step.
KILLED = """
import os, runpy, signal
from amer.trainer import AMERTrainer
step = AMERTrainer.training_step
def training_step(self, *args, **kwargs):
    if self.state.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)
AMERTrainer.training_step = training_step
runpy.run_path("train.py", run_name="__main__")
"""
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]


def write_yaml(folder: Path, text: str) -> str:
    file = folder / "some.yaml"
    file.write_text(text)
    return str(file)


# -------------------------------------------------------------------------------------------- reading the command line


def test_values_come_from_the_yaml_file(tmp_path):
    file = write_yaml(
        tmp_path,
        "base_model: base\ndataset: data\nstore: store\nlearning_rate: 1e-3\nmax_steps: 7\nlora_r: 8\nanchored: true\n"
        "lora_target_modules: [q_proj, v_proj]\neval_ks: [1, 5]\nobjective: mixture\nmax_targets: 1\n",
    )
    model, data, args = parse([file])
    assert (model.base_model, data.dataset, data.store) == ("base", "data", "store")
    assert args.learning_rate == 1e-3 and isinstance(args.learning_rate, float)  # YAML reads 1e-3 as a string
    assert (args.max_steps, args.objective, args.max_targets, data.eval_ks) == (7, "mixture", 1, [1, 5])
    assert model.anchored is True
    assert model.lora == {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}


def test_the_command_line_wins_over_the_yaml_file(tmp_path):
    file = write_yaml(
        tmp_path, "lora_r: 8\nlearning_rate: 1e-3\nlora_target_modules: [a]\neval_ks: [1]\nanchored: true\nseed: 1\n"
    )
    lists = ["--lora_target_modules", "b", "c", "--eval_ks", "2", "20"]
    model, data, args = parse(
        [file, *REQUIRED, *lists, "--lora_r", "16", "--learning_rate", "5e-4", "--anchored", "false"]
    )
    assert model.lora["r"] == 16 and model.lora["target_modules"] == ["b", "c"] and model.anchored is False
    assert data.eval_ks == [2, 20] and args.learning_rate == 5e-4 and args.seed == 1


def test_without_a_yaml_file_the_whole_decoder_is_trained():
    model, data, args = parse([*REQUIRED, "--output_dir", "somewhere"])
    assert model.lora is None and not model.anchored and data.eval_ks == [10, 100]
    assert args.output_dir == "somewhere" and args.scheduled_sampling == "linear"


@pytest.mark.parametrize("missing", ["base_model", "dataset", "store"])
def test_a_required_field_that_is_not_set_is_named(missing):
    at = REQUIRED.index(f"--{missing}")
    with pytest.raises(ValueError, match=f"^{missing} is not set"):
        parse(REQUIRED[:at] + REQUIRED[at + 2 :])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lernrate: 1\nseed: 2\n", "unknown key 'lernrate'"),
        ("learning_rates: 1e-3\n", "unknown key 'learning_rates'; did you mean learning_rate"),
        ("num_query_vector: 3\n", "unknown key 'num_query_vector'; did you mean num_query_vectors"),
        ("1: 2\n", "unknown key 1"),
        ("seed: [1\n", "not valid YAML"),
        ("- seed\n", "must hold a mapping .* got list"),
        ("", "must hold a mapping .* got NoneType"),
    ],
)
def test_a_yaml_file_that_cannot_be_used_is_refused_by_name(tmp_path, text, message):
    file = write_yaml(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        parse([file, *REQUIRED])
    assert file in str(caught.value)


@pytest.mark.parametrize(
    "text", ["objective: ordered", "max_steps: 2.5", "lora_r: true", "learning_rate: fast", "eval_ks: [ten]"]
)
def test_a_value_that_a_field_cannot_have_is_refused_by_name(tmp_path, capsys, text):
    with pytest.raises((ValueError, SystemExit)) as caught:  # argparse explains on stderr and exits
        parse([write_yaml(tmp_path, text), *REQUIRED])
    assert text.partition(":")[0] in (capsys.readouterr().err.rpartition("error:")[2] or str(caught.value))


def test_one_value_where_a_list_belongs_is_a_list_of_one(tmp_path):
    model, data, _ = parse([write_yaml(tmp_path, "eval_ks: 10\nlora_r: 4\nlora_target_modules: q_proj\n"), *REQUIRED])
    assert data.eval_ks == [10] and model.lora_target_modules == ["q_proj"]


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "some.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"some\.yaml"):
        parse([str(tmp_path / "some.yaml"), *REQUIRED])


def test_a_missing_yaml_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        parse(["nowhere.yaml", *REQUIRED])


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match="--lernrate"):
        parse([*REQUIRED, "--lernrate", "1"])


def test_a_packaged_configuration_is_called_by_its_name():
    options = [*REQUIRED[2:], "--max_steps", "7"]
    named, by_file = parse(["mini", *options]), parse([str(CONFIGS / "mini.yaml"), *options])
    assert settings_of(*named) == settings_of(*by_file)
    assert named[0].layers == 2 and named[2].max_steps == 7
    with pytest.raises(ValueError, match=r"'maxi' is not a configuration: give a YAML file, or mini"):
        parse(["maxi", *options])


@pytest.mark.parametrize(
    "file", sorted([*(ROOT / "configs").glob("*.yaml"), *CONFIGS.glob("*.yaml")]), ids=lambda file: file.name
)
def test_every_configuration_that_is_shipped_parses(file):
    values = yaml.safe_load(file.read_text())
    model, data, args = parse([str(file), *(REQUIRED[2:] if "layers" in values else REQUIRED)])
    for name in values.keys() - {"base_model", "dataset", "store", "report_to"}:
        holder = next(group for group in (model, data, args) if hasattr(group, name))
        value, given = getattr(holder, name), values[name]
        assert value == (type(value)(given) if isinstance(value, float) else given), name


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> SimpleNamespace:
    """40 documents; questions with three targets each, as text with vectors (`text`) and as vectors only."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    vectors = rng.normal(size=(40, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"d{i}" for i in range(40)]
    table = pa.table({"id": ids, "title": [""] * 40, "text": [f"text {i}" for i in range(40)]})
    write_store(folder / "store", table, vectors, ENCODER, dtype="float32")

    def split(size: int, text: bool) -> RetrievalDataset:
        return RetrievalDataset(
            query_ids=[f"q{i}" for i in range(size)],
            queries=[f"question {'x' * i}" for i in range(size)] if text else None,
            input_vectors=rng.normal(size=(size, DIM)).astype(np.float32),
            targets=[[[f"d{(3 * i + j) % 40}"] for j in range(3)] for i in range(size)],
            answers=[[] for _ in range(size)],
        )

    for name, text in (("text", True), ("vectors", False)):
        save_dataset_dir(folder / name, {"train": split(12, text), "validation": split(6, text)}, {})
    return SimpleNamespace(text=folder / "text", vectors=folder / "vectors", store=folder / "store")


def command(folder: Path, base: str, dataset: Path, **options) -> list[str]:
    """A YAML file with all of it, and the command line that reads it and writes to `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    where = {"base_model": base, "dataset": str(dataset), "store": str(dataset.parent / "store")}
    file = folder.with_name(f"{folder.name}.yaml")
    values = {**OPTIONS, **where, **options}
    file.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
    return [str(file), "--output_dir", str(folder)]


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def record(folder: Path) -> dict:
    return json.loads((folder / "training_record.json").read_text())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(llama, data, tmp_path_factory) -> Path:
    """The output of six steps, never interrupted, with checkpoints after two and four."""
    folder = tmp_path_factory.mktemp("unbroken") / "out"
    run.main(command(folder, llama, data.text))
    return folder


def test_a_trained_model_loads_with_what_it_was_trained_for(unbroken, llama):
    model = AMERModel.from_pretrained(unbroken)
    config = model.config
    assert config.document_encoder == ENCODER and config.document_dim == DIM and config.num_query_vectors == 2
    assert config.base_model_name_or_path == llama and config.lora["r"] == 4
    vectors = model.encode_query(["question", "another question"])
    assert vectors.shape == (2, 2, DIM) and torch.allclose(vectors.norm(dim=-1), torch.ones(2, 2))
    assert all(value.any() for name, value in model.state_dict().items() if "lora_B" in name)  # they start at zero
    assert [entry["step"] for entry in history(unbroken) if "loss" in entry] == [1, 2, 3, 4, 5, 6]


@pytest.mark.kill
def test_a_launched_run_that_is_killed_goes_on_to_the_same_bytes(unbroken, llama, data, tmp_path):
    folder, arguments = tmp_path / "out", command(tmp_path / "out", llama, data.text)
    (tmp_path / "killed.py").write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launched = subprocess.run([*LAUNCH, str(tmp_path / "killed.py"), *arguments], cwd=ROOT, env=environment)
    assert launched.returncode != 0
    assert {path.name for path in folder.iterdir()} == {"run.json", "checkpoint-2", "checkpoint-4"}
    made = (folder / "checkpoint-4" / "model.safetensors").stat().st_mtime_ns
    run.main(arguments)
    assert weights(folder) == weights(unbroken)
    assert (folder / "checkpoint-4" / "model.safetensors").stat().st_mtime_ns == made  # not done a second time
    check_the_resumed_record(record(folder), record(unbroken), history(folder / "checkpoint-4"))


@pytest.mark.kill
def test_a_run_killed_at_a_random_moment_ends_as_an_unbroken_one_ten_times(llama, data, tmp_path):
    arguments = command(tmp_path, llama, data.text, save_steps=1)
    at = arguments.index("--output_dir")
    script = [sys.executable, str(ROOT / "tests" / "kills.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*script, *arguments[:at], *arguments[at + 2 :]], env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = weights(tmp_path / "unbroken")
    assert all(weights(tmp_path / f"killed-{attempt}") == expected for attempt in range(10))


def check_the_resumed_record(resumed: dict, whole: dict, checkpoint: list[dict]) -> None:
    """It tells of all six steps, and its seconds are those of both parts."""
    changing = {"date", "seconds", "log_history"}
    same = whole.keys() - changing
    assert {name: resumed[name] for name in same} == {name: whole[name] for name in same}
    losses = [
        {entry["step"]: entry["loss"] for entry in of["log_history"] if "loss" in entry} for of in (resumed, whole)
    ]
    assert losses[0] == pytest.approx(losses[1]) and len(losses[0]) == 6
    (last,) = [entry for entry in resumed["log_history"] if "train_runtime" in entry]
    assert resumed["seconds"] == pytest.approx(checkpoint[-1]["seconds"] + last["train_runtime"], abs=1)
    assert resumed["seconds"] > last["train_runtime"]


def test_a_record_of_the_training_is_written(unbroken, data):
    written = record(unbroken)
    assert written["steps"] == 6 and written["batch"]["effective"] == 4 and written["seconds"] > 0
    assert written["settings"]["learning_rate"] == 1e-2 and written["settings"]["objective"] == "matched"
    assert 4 < written["candidates_per_query"]["least"] <= written["candidates_per_query"]["most"] <= 4 * (3 + 2)
    model = AMERModel.from_pretrained(unbroken)
    trained = sum(
        value.numel() for name, value in model.state_dict().items() if "lora" in name or "projection" in name
    )
    assert written["parameters"] == {"trained": trained, "all": model.num_parameters()}
    assert written["dataset"]["name"] == "text"
    splits = written["dataset"]["splits"]
    assert (splits["train"]["queries"], splits["validation"]["queries"]) == (12, 6)
    assert written["store"]["count"] == 40 and written["store"]["encoder"] == ENCODER
    assert "checksums" not in written["store"]
    assert written["log_history"] == history(unbroken)


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("options", [{}, {"lr_scheduler_type": "constant", "save_total_limit": 1}])
def test_a_finished_run_that_is_started_again_trains_nothing_and_writes_nothing(llama, data, tmp_path, options):
    arguments = command(tmp_path / "out", llama, data.text, **options)
    run.main(arguments)
    before = files_of(tmp_path / "out")
    for again in (arguments, [*arguments, "--resume_from_checkpoint", "True"]):
        run.main(again)
        assert files_of(tmp_path / "out") == before


def test_a_run_killed_behind_its_last_checkpoint_is_only_saved(unbroken, llama, data, tmp_path):
    shutil.copytree(unbroken, tmp_path / "out")
    for file in ("model.safetensors", "training_record.json", "trainer_state.json"):
        (tmp_path / "out" / file).unlink()
    run.main(command(tmp_path / "out", llama, data.text))
    assert weights(tmp_path / "out") == weights(unbroken)
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == sorted(
        path.name for path in unbroken.glob("checkpoint-*")
    )
    again = record(tmp_path / "out")
    assert again["steps"] == 6 and again["seconds"] == history(unbroken / "checkpoint-6")[-1]["seconds"]
    assert [entry["step"] for entry in again["log_history"] if "loss" in entry] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("value", "message"), [("True", "holds no complete checkpoint"), ("False", "another output_dir")]
)
def test_going_on_where_that_cannot_be_is_refused(llama, data, tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        run.main([*command(tmp_path / "out", llama, data.text), "--resume_from_checkpoint", value])
    assert not (tmp_path / "out").exists()


def test_dataset_and_store_may_be_names_on_the_hub(llama, data, tmp_path, monkeypatch):
    snapshots = {}
    for name in ("text", "store"):
        snapshots[f"org/{name}"] = tmp_path / name / ("a" * 40)
        shutil.copytree(getattr(data, name), snapshots[f"org/{name}"])
    monkeypatch.setattr(run, "pull_folder", lambda name: snapshots[name.partition("@")[0]])
    arguments = command(tmp_path / "out", llama, data.text, save_strategy="no", max_steps=1)
    run.main([*arguments, "--dataset", "org/text@v1", "--store", "org/store"])
    written = record(tmp_path / "out")
    assert written["dataset"]["repo_id"] == "org/text" and written["dataset"]["revision"] == "a" * 40
    assert written["store"]["repo_id"] == "org/store" and written["store"]["count"] == 40


def test_a_checkpoint_that_was_not_written_whole_is_passed_over(unbroken, llama, data, tmp_path):
    arguments = command(tmp_path / "out", llama, data.text, save_steps=3)
    run.main(arguments)
    for name in ("checkpoint-6/optimizer.pt", "model.safetensors"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "checkpoint-6" / "trainer_state.json").write_text(
        '{"epoch": 1,'
    )  # what it would have ended with
    run.main(arguments)
    assert weights(tmp_path / "out") == weights(unbroken)


def test_the_best_checkpoint_is_what_is_saved(llama, data, tmp_path):
    """Best is here what has the highest loss, so that it is not the last checkpoint."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    run.main(
        command(tmp_path / "out", llama, data.text, eval_strategy="steps", eval_steps=2, max_eval_queries=4, **best)
    )
    evaluations = [entry for entry in history(tmp_path / "out") if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [2, 4, 6]
    chosen = max(evaluations, key=lambda entry: entry["eval_loss"])["step"]
    assert chosen != 6
    assert {f"eval_{name}@{k}" for name in ("recall", "mrecall") for k in (2, 10)} <= evaluations[0].keys()
    assert all(entry["eval_recall@2"] * 4 * 3 % 1 == pytest.approx(0, abs=1e-6) for entry in evaluations)  # of 4
    assert weights(tmp_path / "out") == weights(tmp_path / "out" / f"checkpoint-{chosen}")
    assert weights(tmp_path / "out") != weights(tmp_path / "out" / "checkpoint-6")


def test_questions_that_are_vectors_train_the_whole_decoder_without_a_tokenizer(llama, data, tmp_path):
    run.main(command(tmp_path / "out", llama, data.vectors, **WITHOUT_LORA, save_strategy="no"))
    model = AMERModel.from_pretrained(tmp_path / "out")
    assert model.tokenizer is None and model.config.prompt_template is None and model.config.weights == "full"
    assert not list((tmp_path / "out").glob("tokenizer*"))
    assert model.encode_query(input_vectors=torch.ones(3, DIM)).shape == (3, 2, DIM)
    base, trained = load_file(Path(llama) / "model.safetensors"), model.backbone.state_dict()
    assert all(not torch.equal(trained[key], value) for key, value in base.items() if "layers" in key)


def test_single_query_is_one_vector_and_one_target_a_question(llama, data, tmp_path):
    single = {"max_targets": 1, "num_query_vectors": 1, "num_random_negatives": 0}
    run.main(command(tmp_path / "out", llama, data.text, save_strategy="no", **single))
    assert AMERModel.from_pretrained(tmp_path / "out").encode_query("question").shape == (1, DIM)
    assert all(entry["num_candidates"] <= 4 for entry in history(tmp_path / "out") if "loss" in entry)


def test_an_anchored_model_is_trained_on_the_vectors_beside_the_questions(llama, data, tmp_path):
    run.main(command(tmp_path / "out", llama, data.text, anchored=True, save_strategy="no"))
    model = AMERModel.from_pretrained(tmp_path / "out")
    anchor = torch.nn.functional.normalize(torch.ones(1, DIM), dim=-1)
    similarity = model.encode_query(["question"], input_vectors=anchor)[0] @ anchor[0]
    assert model.config.anchored and (similarity > 0.5).all() and (similarity < 0.999).all()


def test_a_small_decoder_is_trained_on_token_vectors_that_are_made_once(tiny_encoder, data, tmp_path):
    store, cache = DocumentStore.open(data.store), tmp_path / "tokens"
    named = {**ENCODER, "name": tiny_encoder}
    documents = pa.Table.from_pylist(store.documents(range(40)))
    write_store(tmp_path / "store", documents, store.vectors(range(40)), named, dtype="float32")
    options = {
        **WITHOUT_LORA,
        "layers": 1,
        "width": 32,
        "anchor": "tokens",
        "emission": "one_pass",
        "stop_score": True,
    }
    options |= {"store": str(tmp_path / "store"), "token_cache": str(cache), "max_query_vectors": 3}
    run.main(command(tmp_path / "out", "", data.text, **options))
    made = {file: file.stat().st_mtime_ns for file in cache.rglob("vectors-*.npy")}
    model = AMERModel.from_pretrained(tmp_path / "out", verify=True)
    assert model.config.anchor == "tokens" and model.config.stop_score and model.config.base_model_name_or_path is None
    found = model.encode_query(["question xx"], num_query_vectors="auto")
    assert 1 <= found.mask.sum() <= 3
    run.main(command(tmp_path / "again", "", data.text, **options))
    assert len(made) == 2 and made == {file: file.stat().st_mtime_ns for file in cache.rglob("vectors-*.npy")}
    assert weights(tmp_path / "out") == weights(tmp_path / "again")


def test_a_base_and_a_decoder_from_scratch_are_one_too_many():
    with pytest.raises(ValueError, match="leave out base_model or layers"):
        parse([*REQUIRED, "--layers", "2"])


@pytest.mark.parametrize("name", ["./nowhere", "nobody/no-such-decoder", "empty"])
def test_a_base_model_that_is_not_there_is_named_and_nothing_is_written(data, tmp_path, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=name):
        run.main(command(tmp_path / "out", name, data.text))
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_training_questions_is_refused(llama, data, tmp_path):
    splits = load_dataset_dir(data.text)
    save_dataset_dir(tmp_path / "tests", {"test": splits["validation"]}, {})
    with pytest.raises(ValueError, match=r"tests.*train"):
        run.main([*command(tmp_path / "out", llama, tmp_path / "tests"), "--store", str(data.store)])


def without_vectors(dataset: Path, path: Path) -> dict[str, RetrievalDataset]:
    """Saves a dataset's questions as text alone."""
    splits = {name: replace(split, input_vectors=None) for name, split in load_dataset_dir(dataset).items()}
    save_dataset_dir(path, splits, {})
    return splits


def test_an_anchored_model_gets_the_vectors_that_the_dataset_lacks_from_the_stores_encoder(llama, data, tmp_path):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(0)
    embedding = StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=DIM)
    SentenceTransformer(modules=[embedding], device="cpu").save(str(tmp_path / "encoder"))
    encoder = DocumentEncoder(str(tmp_path / "encoder"), device="cpu", query_prompt="ask: ")
    documents = DocumentStore.open(data.store).documents(range(40))
    table = pa.table({name: [document[name] for document in documents] for name in ("id", "title", "text")})
    write_store(tmp_path / "store", table, encoder.encode_documents(table), encoder.identity)
    splits = without_vectors(data.text, tmp_path / "text")
    save_dataset_dir(tmp_path / "prepared", add_question_vectors(splits, encoder), {})
    for name in ("text", "prepared"):
        run.main(command(tmp_path / f"out-{name}", llama, tmp_path / name, anchored=True, save_strategy="no"))
    assert weights(tmp_path / "out-text") == weights(tmp_path / "out-prepared")


def test_an_anchored_model_is_not_trained_where_the_stores_encoder_is_not_there(llama, data, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    without_vectors(data.text, tmp_path / "text")
    with pytest.raises(OSError, match=r"text has none, and the store's encoder hand-made could not be loaded"):
        run.main([*command(tmp_path / "out", llama, tmp_path / "text", anchored=True), "--store", str(data.store)])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_launched_command_is_the_training_of_train_py(unbroken, llama, data, tmp_path):
    arguments = command(tmp_path / "out", llama, data.text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([*LAUNCH, "-m", "amer", "train", *arguments], cwd=tmp_path, env=environment, check=True)
    assert weights(tmp_path / "out") == weights(unbroken)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--temperature", "0.5"], r"temperature \(was 0.05, now 0.5\).*another output_dir"),
        (["--learning_rate", "0.5"], r"learning_rate \(was 0.01, now 0.5\)"),
        (["--per_device_train_batch_size", "2"], r"batch_of_all_processes \(was 4, now 2\)"),
    ],
)
def test_a_checkpoint_of_other_settings_is_not_gone_on_with(unbroken, llama, data, changed, message):
    before = weights(unbroken)
    with pytest.raises(ValueError, match=message):
        run.main([*command(unbroken, llama, data.text), *changed])
    assert weights(unbroken) == before


def test_two_trainings_in_one_folder_do_not_disturb_each_other(unbroken, llama, data, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.2)
    arguments = command(tmp_path / "out", llama, data.text)
    other = [*arguments, "--learning_rate", "0.5"]
    begun = []

    def recorded(*args: object, real=run.training_record, **options: object) -> dict:
        begun.append(True)  # the first is at work, and the second begins
        with pytest.raises(BlockingIOError, match=r"another process is training in .*out"):
            run.main(other)
        return real(*args, **options)

    monkeypatch.setattr(run, "training_record", recorded)
    run.main(arguments)
    assert begun and weights(tmp_path / "out") == weights(unbroken)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["learning_rate"] == 1e-2


def test_vectors_that_would_never_be_trained_are_refused(llama, data, tmp_path):
    with pytest.raises(ValueError, match=r"max_targets is 1.*num_query_vectors cannot be 2"):
        run.main(command(tmp_path / "out", llama, data.text, max_targets=1))
