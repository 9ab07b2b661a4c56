"""A real Milvus standalone server, from the package `milvus`, as a process of the tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "amer-milvus-server.lock"
START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MilvusServer:
    """One server, its folder and its ports; the same when it is started again.

    Its etcd listens on port 2379 whatever one asks for, so a machine runs one server: a second waits for the lock,
    which the server's process holds.
    """

    def __init__(self, folder: Path) -> None:
        import milvus

        self.folder = folder
        self.lock = LOCK.open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.health_port = free_port()
        port = free_port()
        config = milvus.MilvusServerConfig(data_dir=str(folder), proxy_port=port)
        config.set("common.session.ttl", 5)  # seconds after which a killed server is no longer waited for
        config.resolve()
        milvus._initialize_data_files(str(folder))
        self.uri = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        programs = self.folder / "bin"
        environment = {
            **os.environ,
            "DEPLOY_MODE": "STANDALONE",
            "LD_LIBRARY_PATH": str(programs),
            "METRICS_PORT": str(self.health_port),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
        }
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [programs / "milvus", "run", "standalone"],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
                pass_fds=[self.lock.fileno()],
            )
        self._wait()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        """End the process and remove its folder: a quarter of a gigabyte of programs, and data nobody needs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/healthz", timeout=5) as answer:
                    if answer.read() == b"OK":
                        return
            except OSError:
                pass
            time.sleep(0.2)
        ended = self.process.poll()
        raise RuntimeError(
            f"the Milvus server has not started, {'after a while' if ended is None else f'it ended with {ended}'}: is "
            f"port 2379 or 2380 in use? It says: {(self.folder / 'output.txt').read_text(errors='replace')[:2000]}"
        )
