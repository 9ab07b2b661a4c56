from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.analysis import comparison_numbers, comparison_table, gain_numbers, gain_table

LOW = np.arange(40) < 20
SINGLE = np.stack([np.arange(40) % 4 == 0, np.arange(40) % 2 == 0])  # 25% and 50%, on both sets alike
AMER = np.stack([np.arange(40) % 4 < 3, np.arange(40) % 4 < 3])  # 75%
NOTHING = np.zeros((2, 40))


def table_numbers(systems=None, **bases):
    systems = systems or {"Single-Query": SINGLE, "AMER": AMER}
    values = {base: {"wordnet_senses": given} for base, given in (bases or {"Llama-1B": systems}).items()}
    numbers = comparison_numbers(values, {"wordnet_senses": LOW}, resamples=2_000)
    return json.loads(json.dumps(numbers))


def test_means_deviations_gains_the_best_and_the_asterisk_stand_in_markdown():
    text = comparison_table(table_numbers(), "Llama-1B").to_markdown()
    caption, *_, single, amer = text.splitlines()
    assert single == "| wordnet\\_senses | Single-Query | 37.50 ± 17.68 | 0.00% | 37.50 ± 17.68 | 0.00% |"
    assert amer == "|  | AMER | **75.00 ± 0.00**\\* | +100.00% | **75.00 ± 0.00**\\* | +100.00% |"
    for said in ("Llama-1B", "over 2 seeds", "wordnet\\_senses 40 (20)", "2,000 resamples", "p \\< 0.05"):
        assert said in caption


def test_the_same_stands_in_latex():
    text = comparison_table(table_numbers(), "Llama-1B").to_latex()
    assert r"wordnet\_senses & Single-Query & 37.50 $\pm$ 17.68 & 0.00\% & 37.50 $\pm$ 17.68 & 0.00\% \\" in text
    assert r" & AMER & \textbf{75.00 $\pm$ 0.00}$^{*}$ & +100.00\% & \textbf{75.00 $\pm$ 0.00}$^{*}$" in text
    assert r"\begin{tabular}{llrrrr}" in text and r"MRecall@100 & $\Delta$" in text


def test_only_the_tested_system_gets_an_asterisk_and_equal_systems_are_all_the_best():
    systems = {"Single-Query": SINGLE, "Other": AMER, "AMER": AMER}
    rows = comparison_table(table_numbers(systems), "Llama-1B").groups[0]
    assert [(row[2].bold, row[2].asterisk) for row in rows] == [(False, False), (True, False), (True, True)]
    rows = comparison_table(table_numbers({"Single-Query": SINGLE, "AMER": SINGLE}), "Llama-1B").groups[0]
    assert [(row[2].bold, row[2].asterisk) for row in rows] == [(True, False), (True, False)]


def test_one_seed_is_said_and_a_gain_over_nothing_is_not_available():
    table = comparison_table(table_numbers({"Single-Query": NOTHING[:1], "AMER": AMER[:1]}), "Llama-1B")
    assert [cell.text for cell in table.groups[0][0][2:4]] == ["0.00", "n/a"]
    assert [cell.text for cell in table.groups[0][1][2:4]] == ["75.00", "n/a"]
    assert "mean over 1 seed." in table.caption and "±" not in table.to_markdown()


def test_the_columns_of_a_loss_have_a_minus_sign():
    table = comparison_table(table_numbers({"Single-Query": AMER, "AMER": SINGLE}), "Llama-1B")
    assert table.groups[0][1][3].text == "\N{MINUS SIGN}50.00%"
    assert r"$-$50.00\%" in table.to_latex()


def test_an_unknown_base_model_is_refused():
    with pytest.raises(ValueError, match="no base model 'Nobody': choose from Llama-1B"):
        comparison_table(table_numbers(), "Nobody")


def test_average_gains_leave_the_reference_out_and_the_best_is_bold():
    systems = {"Single-Query": SINGLE, "Re-ranking": SINGLE, "AMER": AMER}
    table = gain_table(json.loads(json.dumps(gain_numbers(table_numbers(a=systems, b=systems)))))
    lines = table.to_markdown().splitlines()
    assert lines[-2:] == ["| Re-ranking | 0.00% | 0.00% |", "| AMER | **+100.00%** | **+100.00%** |"]
    assert "(whole set) | wordnet\\_senses (low similarity third)" in lines[2]
    assert "over 2 base models: a, b." in table.caption and "(n of" not in table.caption


def test_an_average_over_some_base_models_says_so():
    known, unknown = {"Single-Query": SINGLE, "AMER": AMER}, {"Single-Query": NOTHING, "AMER": AMER}
    table = gain_table(gain_numbers(table_numbers(a=known, b=unknown, c=known)))
    assert [cell.text for cell in table.groups[0][0]] == ["AMER", "+100.00% (2 of 3)", "+100.00% (2 of 3)"]
    assert "(n of 3): averaged over n base models, since A is 0 with the others." in table.caption
    table = gain_table(gain_numbers(table_numbers(a=unknown)))
    assert [(cell.text, cell.bold) for cell in table.groups[0][0][1:]] == [("n/a", False)] * 2
    assert "over 1 base model: a." in table.caption
