"""The fixture `hub`: a Hub of the test's own, and client processes that know no other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from tests.hub.messages import Request
from tests.hub.repos import Repo, new_repo
from tests.hub.server import Action, Dropped, Hook, Hub

PROJECT = Path(__file__).parents[2]
PACKAGES = ("amer", "hub_cards", "modeling_amer", "trainer")
FOREIGN = re.compile(r"(HF_|HUGGINGFACE_|HUGGING_FACE_|TRANSFORMERS_|PYTHON)|(HTTPS?|ALL|NO)_PROXY$", re.IGNORECASE)
# Python runs a module of this name at its start, in the processes that a client starts too.
SITECUSTOMIZE = f"""
import sys
from importlib.util import find_spec


def editable(finder):
    return getattr(finder, "__module__", "").startswith("__editable__")


sys.meta_path[:] = [finder for finder in sys.meta_path if not editable(finder)]
sys.path[:] = [entry for entry in sys.path if entry != {str(PROJECT)!r} and not entry.startswith("__editable__")]
found = [name for name in {PACKAGES!r} if find_spec(name)]
if found:
    sys.exit(f"{{found}} can be imported: install the project in editable mode (make venv) to run this test")
"""


def contents(files: Path | Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Each file of a folder with its path there, or of a mapping; one content in memory at a time."""
    if not isinstance(files, Path):
        yield from files.items()
        return
    for path in sorted(files.rglob("*")):
        if path.is_file():
            yield path.relative_to(files).as_posix(), path.read_bytes()


class LoopbackHub:
    """A running Hub as a test sees it.

    Attributes:
        url: its address.
        env: what a process needs in its environment to use this Hub, with a write token and a cache of its own.
        requests: method and unquoted path of every request so far.
    """

    def __init__(self, folder: Path) -> None:
        self._hub = Hub(folder / "blobs")
        self._clients: list[subprocess.Popen[str]] = []
        self._cwd = folder / "cwd"
        self._cwd.mkdir()
        self._site = folder / "site"
        self._site.mkdir()
        (self._site / "sitecustomize.py").write_text(SITECUSTOMIZE)
        self.url = self._hub.url
        self.requests = self._hub.requests
        self.env = {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": "hf_test",
            "HF_HOME": str(folder / "hf-home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def start(self) -> None:
        self._hub.start()

    def stop(self) -> None:
        """Stop serving, so that clients find a dead address."""
        self._hub.stop()

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        """What the Hub keeps of a repository: `private`, `gated`, `branches`, `tags`, `commits`."""
        return self._hub.repos[repo_type, repo_id]

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Every file of a repository at a revision, as the server holds it, `.gitattributes` included."""
        tree = self.repo(repo_id, repo_type).resolve(revision).files
        return {path: self._hub.blobs.path(blob.sha256).read_bytes() for path, blob in tree.items()}

    def seed(
        self,
        repo_id: str,
        files: Path | Mapping[str, bytes],
        repo_type: str = "model",
        private: bool = False,
        gated: str | bool = False,
    ) -> str:
        """Put files in a repository as one commit on main, past the client and its token.

        Args:
            repo_id: made when missing; in any namespace.
            files: a folder, or contents by path. Files already there under other names stay.
            repo_type: "model", "dataset" or "space".
            private: seen by the user's own tokens alone.
            gated: False, "auto" or "manual".

        Returns:
            The id of the commit.
        """
        repos, blobs = self._hub.repos, self._hub.blobs
        with self._hub.lock:
            if (repo_type, repo_id) not in repos:
                repos[repo_type, repo_id] = new_repo(blobs, repo_type, repo_id, sdk="static")
            repo = repos[repo_type, repo_id]
            repo.private, repo.gated = private, gated
            parent = repo.head("main")
            stored = {path: blobs.store(path, content) for path, content in contents(files)}
            new = repo.add(parent, {**parent.files, **stored}, "seed")
            repo.branches["main"] = new.oid
        return new.oid

    def run(
        self,
        code: str,
        *args: object,
        check: bool = True,
        project: bool = False,
        timeout: float = 300,
        **env: object,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code in a fresh process that uses this Hub.

        Args:
            code: run as `python -c`, in a folder outside the project.
            *args: its `sys.argv[1:]`, as text.
            check: fail the test, with what the process printed, when it does not exit with 0.
            project: whether the project can be imported there.
            timeout: seconds.
            **env: environment variables on top of `self.env`, as text; None removes one.

        Returns:
            The finished process, with `stdout` and `stderr` as text.
        """
        command = [sys.executable, "-c", dedent(code), *map(str, args)]
        with subprocess.Popen(
            command,
            cwd=self._cwd,
            env=self._environment(project, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as client:
            self._clients.append(client)
            try:
                stdout, stderr = client.communicate(timeout=timeout)
            except BaseException:
                self._kill(client)
                raise
            finally:
                self._clients.remove(client)
        if check and client.returncode != 0:
            raise AssertionError(f"the client exited with {client.returncode}\n{stdout}\n{stderr}")
        return subprocess.CompletedProcess(command, client.returncode, stdout, stderr)

    def _environment(self, project: bool, changes: Mapping[str, object]) -> dict[str, str]:
        """This process's environment without what would lead a client elsewhere, and with the way to this Hub."""
        own = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        python = {
            "PYTHONPATH": str(PROJECT) if project else str(self._site),
            "PYTHONSAFEPATH": "1",
        }
        merged = {**own, **python, **self.env, **changes}
        return {name: str(value) for name, value in merged.items() if value is not None}

    def before(self, method: str, pattern: str, action: Action) -> None:
        """Call `action` with the next such request, before it is handled.

        Args:
            method: "POST", "PUT", ...
            pattern: regular expression, searched in the unquoted path.
            action: may do anything: sleep, change the Hub, raise `Dropped`; a `Response` it returns is sent instead.
        """
        self._hub.hooks.append(Hook(method, re.compile(pattern), action))

    def die_before(self, method: str, pattern: str) -> None:
        """Kill the client (SIGKILL) at the next such request, which is not handled."""
        self._hub.hooks.append(Hook(method, re.compile(pattern), self._die))

    def die_after(self, method: str, pattern: str) -> None:
        """Kill the client (SIGKILL) when the next such request has been handled, before it learns of it."""
        self._hub.hooks.append(Hook(method, re.compile(pattern), self._die, answered=True))

    def _die(self, request: Request) -> None:
        for client in self._clients:
            self._kill(client)
        raise Dropped

    def _kill(self, client: subprocess.Popen[str]) -> None:
        """Kill a client, not yet waited for, and the processes it has started."""
        os.killpg(client.pid, signal.SIGKILL)


@contextmanager
def loopback_hub(folder: Path) -> Iterator[LoopbackHub]:
    """An empty Hub in an empty folder, for fixtures that outlive a test."""
    running = LoopbackHub(folder)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """An empty Hub of the test's own."""
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running
