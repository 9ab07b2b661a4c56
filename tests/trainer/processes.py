"""Run by tests/trainer/test_distributed.py in one, two and four processes: `torchrun processes.py FOLDER BASE WORLD`.

Each part leaves what it found in FOLDER, to be compared between the numbers of processes.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from amer.files import write_json
from amer.trainer import AMERTrainer
from tests.conftest import build
from tests.trainer.conftest import small_world
from tests.trainer.test_trainer import make_trainer

GLOBAL_BATCH = 8
UNEVEN = {1: [8], 2: [6, 2], 4: [1, 4, 2, 1]}  # questions of each process
OPTIONS = {"optim": "sgd", "max_grad_norm": 1.0, "learning_rate": 0.01, "lr_scheduler_type": "linear"}


def world_of(folder: Path, rank: int) -> SimpleNamespace:
    """22 questions with one to three targets: not a multiple of the batch."""
    world = small_world(folder / f"world-{rank}-of-{processes()}")
    world.dataset = world.dataset.select(range(22)).link(world.store)
    return world


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def trainer_of(base: str, world: SimpleNamespace, folder: Path, **options):
    options = {"per_device_train_batch_size": GLOBAL_BATCH // processes(), **OPTIONS, **options}
    return make_trainer(build(base), world, folder, **options)


def replicated(trainer: AMERTrainer) -> nn.Module:
    """As DDP has it: the whole model in every process."""
    return trainer.accelerator.prepare(trainer.model) if processes() > 1 else trainer.model


def sharded(trainer: AMERTrainer) -> nn.Module:
    """As FSDP2 has it, which accelerate leaves out on CPUs without a word: a part of every weight in each process."""
    if processes() > 1:
        mesh = init_device_mesh("cpu", (processes(),))
        for layer in trainer.model.backbone.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(trainer.model, mesh=mesh)
    return trainer.model


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def uneven_step(folder: Path, base: str, world: SimpleNamespace, rank: int, spread=replicated) -> None:
    """Loss and gradient of eight questions, dealt unevenly: other numbers of questions and of targets everywhere."""
    trainer = trainer_of(base, world, folder / "step")
    trainer.state.max_steps = 2
    trainer.state.global_step = 1  # half of the inputs are predictions
    model = spread(trainer)
    sizes = UNEVEN[processes()]
    start = sum(sizes[:rank])
    rows = [0, 3, 6, 1, 2, 5, 8, 9][start : start + sizes[rank]]
    batch = trainer.data_collator([world.dataset[row] for row in rows])
    count = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    loss = trainer.compute_loss(model.train(), batch, num_items_in_batch=count)
    loss.backward()
    mean = trainer.accelerator.reduce(loss.detach(), "mean")
    found = {name: whole(value.grad) for name, value in trainer.model.named_parameters() if value.requires_grad}
    if rank == 0:
        save_file({"loss": mean[None], **found}, folder / f"{spread.__name__}-{processes()}.safetensors")


def evaluated(folder: Path, base: str, world: SimpleNamespace, rank: int) -> None:
    """Evaluation before any training, and a training after it."""
    world = SimpleNamespace(**{**vars(world), "dataset": world.dataset.select(range(16)).link(world.store)})
    options = {"per_device_eval_batch_size": GLOBAL_BATCH // processes(), "max_steps": 1}
    trainer = trainer_of(base, world, folder / "evaluated", **options)
    metrics = {key: value for key, value in trainer.evaluate().items() if "recall" in key or "loss" in key}
    trainer.train()
    if rank == 0:
        write_json(folder / f"evaluated-{processes()}.json", metrics)


def whole_run(folder: Path, base: str, world: SimpleNamespace, rank: int) -> None:
    """Eight steps, two epochs and a part of the third, with the paper's schedule, and a checkpoint amid the second."""
    output = folder / f"run-{processes()}"
    trainer = trainer_of(base, world, output, max_steps=8, save_strategy="steps", save_steps=4)
    trainer.train()
    trainer.save_model()


def resumed_run(folder: Path, base: str, world: SimpleNamespace, rank: int) -> None:
    """What one process has begun is finished by these."""
    output = folder / f"resumed-{processes()}"
    trainer = trainer_of(base, world, output, max_steps=8)
    trainer.train(resume_from_checkpoint=str(folder / "run-1" / "checkpoint-4"))
    trainer.save_model()


def main(folder: Path, base: str) -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    world = world_of(folder, rank)
    for part in (uneven_step, partial(uneven_step, spread=sharded), evaluated, whole_run, resumed_run):
        part(folder, base, world, rank)
        if dist.is_initialized():
            dist.barrier()
    shutil.rmtree(folder / f"world-{rank}-of-{processes()}")


if __name__ == "__main__":
    dist.init_process_group("gloo")
    if dist.get_world_size() != int(sys.argv[3]):  # some ways to launch run one process and say nothing
        sys.exit(f"{dist.get_world_size()} processes, not {sys.argv[3]}")
    main(Path(sys.argv[1]), sys.argv[2])
    dist.destroy_process_group()
