"""schemathesis makes requests of the service's own OpenAPI schema, fit and unfit, and checks every answer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from amer.service import create_app
from tests.service.conftest import running

pytest.importorskip("schemathesis", reason="needs the extra `dev`")

pytestmark = [pytest.mark.slow, pytest.mark.server]
# A string that fits the schema of a filter is hardly ever a filter: its grammar and the documents' fields are not
# what JSON Schema can say, so fit requests may be refused with 422.
LEFT_OUT = "positive_data_acceptance"
EXAMPLES = os.environ.get("AMER_FUZZ_EXAMPLES", "40")  # of each operation


@pytest.mark.parametrize("key", [None, "secret"])
def test_every_answer_is_documented(searcher, key, tmp_path):
    with running(create_app(searcher, api_key=key)) as address:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", "all"]
        command += [
            "--exclude-checks",
            LEFT_OUT,
            "--max-examples",
            EXAMPLES,
            "--seed",
            "1",
            "--generation-database=none",
        ]
        command += ["--continue-on-failure", "--no-color"]
        if key is not None:
            command += ["--header", f"X-API-Key: {key}"]
        fuzzed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert fuzzed.returncode == 0, fuzzed.stdout[-8_000:] + fuzzed.stderr[-2_000:]
