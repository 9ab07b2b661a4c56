"""A service in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READY = re.compile(r"ready: (http://\S+)")


@contextmanager
def serving(*command: str, cwd: Path = ROOT, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A Python process and the address it serves on; whatever happens, it is ended."""
    process = subprocess.Popen(
        [sys.executable, *command], stderr=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, **environment}
    )
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := READY.search(line):
                break
        else:
            pytest.fail(f"the service did not start:\n{said}")
        yield process, found.group(1)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
