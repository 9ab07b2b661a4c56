"""Values as a card and the terminal show them."""

from __future__ import annotations

import pytest

from amer.hub_cards.rendering import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10.4, "10 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (12_010, "3 h 20 min"),
    ],
)
def test_seconds_in_words(seconds, words):
    assert duration(seconds) == words
