"""JSON files that say what lies beside them: whatever they hold, the error names the file and the field."""

from __future__ import annotations

import pytest

from amer.manifests import NUMBER, read_manifest

FIELDS = {"name": str, "count": int, "recall": NUMBER, "width": (int, type(None)), "parts": list}
GOOD = '{"name": "a", "count": 3, "recall": 1, "width": null, "parts": []}'


def test_fields_of_their_types_come_back(tmp_path):
    file = tmp_path / "index.json"
    file.write_text(GOOD)
    assert read_manifest(file, FIELDS, {"note": str})["count"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ('{"count": 1' + "0" * 5_000 + "}", "not a JSON file"),
        ("[1]", r"must be a JSON object, not \[1\]"),
        ('"text"', "must be a JSON object"),
        ("{}", "lacks name, count, recall, width, parts"),
        (GOOD.replace("3", '"3"'), "count must be a whole number, not '3'"),
        (GOOD.replace("3", "true"), "count must be a whole number, not True"),
        (GOOD.replace("3", "3.5"), "count must be a whole number, not 3.5"),
        (GOOD.replace('"a"', "null"), "name must be a text, not None"),
        (GOOD.replace("null", "1.5"), "width must be a whole number or null"),
        (GOOD.replace("[]", "{}"), "parts must be a list"),
        (GOOD.replace("}", ', "note": 7}'), "note must be a text"),
    ],
)
def test_anything_else_is_refused_with_file_and_field(tmp_path, text, said):
    file = tmp_path / "index.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"index\.json.* {said}"):
        read_manifest(file, FIELDS, {"note": str})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        read_manifest(tmp_path / "index.json", FIELDS)
