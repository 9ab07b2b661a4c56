"""Options are checked before work begins: each bad value is refused with the option's name and the value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from amer.commands.app import app
from amer.corpus import write_store
from amer.corpus.importing import import_vectors
from amer.corpus.table import checked_documents
from amer.machine import chosen_device
from amer.ranges import Range
from amer.trainer.parsing import parse

REQUIRED = ["--base_model", "base", "--dataset", "data", "--store", "store", "--output_dir", "out", "--use_cpu=1"]
NUMBERS = {
    "max_eval_queries": ("-1", "0"),
    "eval_ks": ("-1", "0"),
    "num_query_vectors": ("0", "-3"),
    "max_query_vectors": ("0",),
    "layers": ("0", "-1"),
    "width": ("0",),
    "lora_r": ("0", "-8"),
    "lora_alpha": ("0", "-16"),
    "lora_dropout": ("-1", "1", "nan"),
    "learning_rate": ("nan", "inf", "-1"),
    "weight_decay": ("nan", "-1"),
    "adam_beta1": ("1", "nan"),
    "adam_beta2": ("-0.1",),
    "adam_epsilon": ("nan",),
    "max_grad_norm": ("nan", "-1"),
    "warmup_steps": ("-1", "nan"),
    "temperature": ("0", "-1", "nan", "inf"),
    "span_weight": ("-1", "nan"),
    "stop_weight": ("-1", "nan"),
    "num_train_epochs": ("0", "nan", "-1"),
    "max_steps": ("0", "-2"),
    "save_steps": ("0", "nan"),
    "eval_steps": ("0",),
    "logging_steps": ("0",),
    "seed": ("-1", str(2**32)),
    "data_seed": ("-1",),
    "max_targets": ("0",),
    "num_random_negatives": ("-1", str(10**12)),
    "per_device_train_batch_size": ("0", "-4", str(10**12)),
    "per_device_eval_batch_size": ("0", str(10**12)),
    "gradient_accumulation_steps": ("0", str(10**12)),
}
CHOICES = {
    "dtype": ("abc", "float64", "int8"),
    "anchor": ("words",),
    "emission": ("twice",),
    "objective": ("ordered",),
    "scheduled_sampling": ("sometimes",),
    "train_sampling_strategy": ("sequential",),
}


@pytest.mark.parametrize(
    ("option", "value"), [(name, value) for name, values in {**NUMBERS, **CHOICES}.items() for value in values]
)
def test_a_training_option_outside_its_range_is_refused_by_name_and_value(option, value):
    with pytest.raises(ValueError, match=rf"^{option} must .*got '?-?{value.lstrip('-').partition('.')[0]}"[:60]):
        parse([*REQUIRED, f"--{option}={value}"])


@pytest.mark.parametrize(
    "factory",
    ["HNSW0", "HNSW1", "IVF0,Flat", "PQ0", "PQ16x0", "NSG1", "IVF16_HNSW0,Flat", "OPQ0,Flat", "SQ0", "", "\0"],
)
def test_an_index_that_ends_the_process_is_refused_at_once(factory):
    pytest.importorskip("faiss")
    from amer.search.index.faiss.library import make_index

    with pytest.raises(ValueError, match="FAISS cannot build"):
        make_index(factory, 16)


@pytest.mark.parametrize("factory", ["HNSW32", "HNSW2", "IVF10,Flat", "PQ16x10", "IVF100_HNSW20,PQ8x4fs"])
def test_numbers_that_end_in_zero_are_no_zeros(factory):
    pytest.importorskip("faiss")
    from amer.search.index.faiss.library import make_index

    assert make_index(factory, 16).d == 16


INDEX = ["index", "build", "--store", "s", "--output", "o"]
SERVE = ["serve", "--model", "m", "--store", "s"]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (INDEX, "--recall", "1.5"),
        (INDEX, "--k", "0"),
        (INDEX, "--memory", "nan"),
        (INDEX, "--memory", "-1"),
        (INDEX, "--queries", "vectors.parquet"),
        (SERVE, "--port", "70000"),
        (SERVE, "--max-connections", "0"),
        (SERVE, "--idle-seconds", "-1"),
        (["search", "q", "--model", "m", "--store", "s"], "--k", "0"),
        (["encode", "--model", "m", "--output", "o", "--dataset", "d"], "--batch-size", "0"),
        (["evaluate", "--model", "m", "--dataset", "d", "--store", "s", "--output", "o"], "--k", "-1"),
    ],
)
def test_a_command_line_that_is_wrong_is_told_so_before_anything_is_opened(command, option, value):
    said = CliRunner().invoke(app, [*command, option, value])
    assert said.exit_code == 2 and option.strip("-").replace("-", "_") in said.output.replace("-", "_")


@pytest.mark.parametrize("device", ["abc", "cuda:99", "cuda:x"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device .*'{device}'"):
        chosen_device(device)


def documents(*ids: str) -> pa.Table:
    return pa.table({"id": list(ids), "title": [""] * len(ids), "text": list(ids)})


def test_the_empty_string_is_no_id():
    with pytest.raises(ValueError, match="row 1 has the empty string as its id"):
        checked_documents(documents("a", ""))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, bool, "U3"])
def test_vectors_that_are_no_real_numbers_are_refused(tmp_path, dtype):
    vectors = np.eye(2).astype(dtype)
    with pytest.raises(ValueError, match="real numbers"):
        import_vectors(tmp_path / "imported", documents("a", "b"), vectors, {"name": "encoder"})
    if np.dtype(dtype).kind == "c":
        with pytest.raises(ValueError, match="real numbers"):
            write_store(tmp_path / "written", documents("a", "b"), vectors, {"name": "encoder"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (Range(0), (0, 1e9), (-1, float("nan"), float("inf"), True, "1", None)),
        (Range(0, above=True), (1e-9,), (0,)),
        (Range(1, 8), (1, 8), (0, 9)),
        (Range(0, 1, below=True), (0, 0.99), (1,)),
    ],
)
def test_ranges_hold_what_they_say(allowed, inside, outside):
    assert all(value in allowed for value in inside) and not any(value in allowed for value in outside)
