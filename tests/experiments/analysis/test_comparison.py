from __future__ import annotations

import json

import numpy as np
import pytest

from amer.evaluation import paired_bootstrap
from experiments.analysis import comparison_numbers, gain_numbers

LOW = np.array([True, True, False, False])
SINGLE = np.array([[1, 0, 1, 0], [0, 0, 1, 0]])
AMER = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]])
NONE = np.zeros((1, 4))
PAPER = {  # the gains of AMER in Tables 5 to 8, and what Table 2 makes of them
    "Llama-8B": (0.0579, 0.0489, 0.0160, 0.0441),
    "Qwen3-4B": (0.0326, 0.0323, 0.3134, 1.6958),
    "Llama-3B": (0.0360, 0.0467, 0.2359, 1.6682),
    "Llama-1B": (0.0406, 0.0711, 0.2886, 2.3814),
}
TABLE_2 = (0.0418, 0.0497, 0.2135, 1.4474)


def numbers_of(single=SINGLE, amer=AMER, **settings):
    return comparison_numbers(
        {"base": {"Senses": {"Single-Query": single, "AMER": amer}}}, {"Senses": LOW}, **settings
    )


def test_worked_example():
    numbers = numbers_of()
    systems = numbers["bases"]["base"]["Senses"]
    assert numbers["queries"] == {"Senses": {"whole": 4, "low_similarity": 2}}
    assert systems["Single-Query"]["seeds"] == 2 and systems["AMER"]["seeds"] == 3
    # Single-Query: seeds 1/2 and 1/4 on all, 1/2 and 0 on the low similarity set. AMER: 3/4, 3/4, 1 and 1, 1/2, 1.
    assert systems["Single-Query"]["whole"] == {
        "mean": 0.375, "deviation": pytest.approx(0.125 * 2**0.5), "gain": 0, "p_value": None
    }  # fmt: skip
    assert systems["Single-Query"]["low_similarity"]["mean"] == 0.25
    whole, low = systems["AMER"]["whole"], systems["AMER"]["low_similarity"]
    assert (whole["mean"], low["mean"]) == pytest.approx((5 / 6, 5 / 6))
    assert whole["deviation"] == pytest.approx(np.std([0.75, 0.75, 1], ddof=1))
    assert (whole["gain"], low["gain"]) == pytest.approx((5 / 6 / 0.375 - 1, 5 / 6 / 0.25 - 1))


def test_the_p_value_is_of_the_queries_means_over_the_seeds():
    generator = np.random.default_rng(0)
    single, amer = generator.random((3, 60)) < 0.4, generator.random((2, 60)) < 0.6
    low = np.arange(60) < 20
    values = {"base": {"Senses": {"Single-Query": single, "AMER": amer}}}
    entry = comparison_numbers(values, {"Senses": low}, resamples=500, seed=7)["bases"]["base"]["Senses"]["AMER"]
    whole = paired_bootstrap(amer.mean(axis=0), single.mean(axis=0), 500, 7)
    part = paired_bootstrap(amer[:, :20].mean(axis=0), single[:, :20].mean(axis=0), 500, 7)
    assert (entry["whole"]["p_value"], entry["low_similarity"]["p_value"]) == (whole.p_value, part.p_value)
    assert whole.p_value != part.p_value


def test_one_seed_has_no_deviation_and_no_gain_exists_over_nothing():
    systems = numbers_of(single=NONE, amer=AMER[:1])["bases"]["base"]["Senses"]
    assert all(systems[name]["whole"]["deviation"] is None for name in systems)
    assert all(systems[name][subset]["gain"] is None for name in systems for subset in ("whole", "low_similarity"))
    assert systems["AMER"]["whole"]["p_value"] is not None


def test_the_numbers_survive_a_file():
    numbers = numbers_of(single=NONE)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert json.loads(json.dumps(gain_numbers(numbers), allow_nan=False)) == gain_numbers(numbers)


def test_gains_are_averaged_over_base_models_as_table_2_of_the_paper():
    subsets = ("whole", "low_similarity")
    bases = {}
    for base, gains in PAPER.items():
        shares = [{"mean": 0.5, "deviation": None, "gain": gain, "p_value": 0.01} for gain in gains]
        entries = {"AmbigQA": shares[:2], "QAMPARI": shares[2:]}
        bases[base] = {
            dataset: {
                "Single-Query": {"seeds": 3, "whole": {"gain": 0.0}, "low_similarity": {"gain": 0.0}},
                "AMER": {"seeds": 3, **dict(zip(subsets, pair, strict=True))},
            }
            for dataset, pair in entries.items()
        }
    comparison = {"metric": "mrecall@100", "reference": "Single-Query", "queries": {"AmbigQA": {}, "QAMPARI": {}}}
    gains = gain_numbers({**comparison, "bases": bases})
    averages = [gains["systems"]["AMER"][dataset][subset]["gain"] for dataset in bases[base] for subset in subsets]
    np.testing.assert_allclose(averages, TABLE_2, atol=5.1e-5)
    assert list(gains["systems"]) == ["AMER"] and gains["seeds"] == [3, 3]


def test_a_base_model_without_a_gain_is_named_by_its_absence():
    values = {
        "zero": {"Senses": {"Single-Query": NONE, "AMER": AMER}},
        "some": {"Senses": {"Single-Query": SINGLE, "AMER": AMER}},
    }
    comparison = comparison_numbers(values, {"Senses": LOW})
    average = gain_numbers(comparison)["systems"]["AMER"]["Senses"]["whole"]
    assert average == {"gain": comparison["bases"]["some"]["Senses"]["AMER"]["whole"]["gain"], "bases": ["some"]}
    assert gain_numbers(comparison)["seeds"] == [1, 3]
    nothing = gain_numbers(comparison_numbers({"zero": values["zero"]}, {"Senses": LOW}))
    assert nothing["systems"]["AMER"]["Senses"]["whole"] == {"gain": None, "bases": []}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"amer": AMER[:, :3]}, r"base, Senses, AMER: values must be \(seeds, 4\)"),
        ({"amer": AMER[0]}, r"values must be \(seeds, 4\)"),
        ({"amer": AMER[:0]}, r"values must be \(seeds, 4\)"),
        ({"amer": 100 * AMER}, "0 to 1"),
        ({"amer": -AMER}, "0 to 1"),
        ({"amer": np.full((3, 4), np.nan)}, "are NaN"),
        ({"reference": "Nobody"}, "'Nobody' and tested 'AMER' must be two of"),
        ({"tested": "Nobody"}, "tested 'Nobody' must be two of"),
        ({"tested": "Single-Query"}, "must be two of"),
    ],
)
def test_wrong_values_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        numbers_of(**given)


@pytest.mark.parametrize("low", [np.array([True, False, False, False]), np.array([1, 1, 0, 0]), LOW[None]])
def test_a_wrong_low_similarity_set_is_refused(low):
    systems = {"Single-Query": SINGLE, "AMER": AMER}
    with pytest.raises(ValueError, match=r"low must be \(q,\) bool with two queries or more"):
        comparison_numbers({"base": {"Senses": systems}}, {"Senses": low})


def test_base_models_with_other_datasets_or_systems_are_refused():
    systems = {"Single-Query": SINGLE, "AMER": AMER}
    with pytest.raises(ValueError, match="base model 'b' has the datasets"):
        comparison_numbers({"a": {"Senses": systems}, "b": {}}, {"Senses": LOW})
    with pytest.raises(ValueError, match="'b' on 'Senses' has the systems"):
        other = {**systems, "More": AMER}
        comparison_numbers({"a": {"Senses": systems}, "b": {"Senses": other}}, {"Senses": LOW})
    with pytest.raises(ValueError, match="must be two of the systems"):
        comparison_numbers({}, {"Senses": LOW})
