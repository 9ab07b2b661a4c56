from __future__ import annotations

import pytest

from experiments.analysis import Cell, Table
from experiments.analysis.tables import gain_percent, highest

TABLE = Table(
    "50% of it, p < 0.05",
    ["Name", "a_b"],
    [[[Cell("[x] | y*_"), Cell("1 ± 2", bold=True, asterisk=True)]], [[Cell(r"\&~^"), Cell("3")]]],
)


def test_markdown_escapes_what_it_would_take_for_its_own():
    assert TABLE.to_markdown() == (
        "50% of it, p \\< 0.05\n\n"
        "| Name | a\\_b |\n"
        "| --- | ---: |\n"
        "| \\[x\\] \\| y\\*\\_ | **1 ± 2**\\* |\n"
        "| \\\\&\\~^ | 3 |\n"
    )


def test_latex_has_rules_between_groups_and_escapes_special_characters():
    assert TABLE.to_latex().splitlines() == [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{50\% of it, p \textless{} 0.05}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"Name & a\_b \\",
        r"\midrule",
        r"{[}x] \textbar{} y*\_ & \textbf{1 $\pm$ 2}$^{*}$ \\",
        r"\midrule",
        r"\textbackslash{}\&\textasciitilde{}\textasciicircum{} & 3 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_a_table_is_saved_in_both_forms(tmp_path):
    TABLE.save(tmp_path / "table8.1B")
    assert {file.name for file in tmp_path.iterdir()} == {"table8.1B.md", "table8.1B.tex"}
    assert (tmp_path / "table8.1B.md").read_text(encoding="utf-8") == TABLE.to_markdown()
    assert (tmp_path / "table8.1B.tex").read_text(encoding="utf-8") == TABLE.to_latex()


@pytest.mark.parametrize(
    ("gain", "text"),
    [(0.05789, "+5.79%"), (-0.0006, "\N{MINUS SIGN}0.06%"), (0.0, "0.00%"), (-1e-9, "0.00%"), (None, "n/a")],
)
def test_a_gain_has_its_sign_unless_nothing_is_left_of_it(gain, text):
    assert gain_percent(gain) == text


def test_the_highest_are_those_that_are_printed_alike():
    assert highest([0.1, 0.500001, 0.5, None]) == [False, True, True, False]
    assert highest([None, None]) == [False, False]
