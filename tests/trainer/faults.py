"""Run by tests/trainer/test_faults.py in two processes; the second dies, or hangs: `faults.py FOLDER BASE dies`."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from amer.trainer import AMERTrainer
from tests.conftest import build
from tests.trainer.conftest import small_world
from tests.trainer.test_trainer import make_trainer

FAULTS = {"dies": lambda: os.kill(os.getpid(), signal.SIGKILL), "hangs": lambda: time.sleep(1000)}


class FaultyTrainer(AMERTrainer):
    """Comes as far as its third step."""

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 2 and self.args.process_index == 1:
            FAULTS[sys.argv[3]]()
        return super().training_step(*args, **kwargs)


def main() -> None:
    # What `ddp_timeout` does on GPUs: with use_cpu, transformers passes it to nobody.
    dist.init_process_group("gloo", timeout=timedelta(seconds=10))
    folder = Path(sys.argv[1])
    world = small_world(folder / f"world-{os.environ['RANK']}")
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(build(sys.argv[2]), world, folder / "run", **options)
    trainer.__class__ = FaultyTrainer
    trainer.train()


if __name__ == "__main__":
    main()
