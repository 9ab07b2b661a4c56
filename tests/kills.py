"""Run by tests/test_train.py: `kills.py FOLDER TRAIN_ARGUMENTS...`.

Trains once undisturbed, and ten times killed at a random moment and started again. Each training is a fork of this
process, which has imported everything and computed nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from amer.trainer import run


def start(arguments: list[str]) -> int:
    """A process that trains; its id."""
    child = os.fork()
    if child == 0:
        run.main(arguments)
        os._exit(0)
    return child


def finish(arguments: list[str]) -> float:
    """Train to the end; the seconds it took."""
    began = time.monotonic()
    _, status = os.waitpid(start(arguments), 0)
    if status != 0:
        sys.exit(f"a training that nobody killed ended with {status}")
    return time.monotonic() - began


def main() -> None:
    folder, *arguments = sys.argv[1:]
    seconds = finish([*arguments, "--output_dir", f"{folder}/unbroken"])
    for attempt in range(10):
        broken = [*arguments, "--output_dir", f"{folder}/killed-{attempt}"]
        moment = random.uniform(0, seconds)
        sys.stderr.write(f"killing attempt {attempt} after {moment} s\n")
        child = start(broken)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)  # if it has ended meanwhile, it is not reaped yet
        os.waitpid(child, 0)
        finish(broken)


if __name__ == "__main__":
    main()
