"""Run by tests/trainer/test_distributed.py in two processes (gloo): `torchrun two_processes.py FOLDER BASE`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import logging as transformers_logging

from modeling_amer import AMERModel
from tests.conftest import build
from tests.trainer.conftest import small_world
from tests.trainer.test_trainer import make_trainer

QUESTIONS = ["bank", "a longer question"]


def in_step(model) -> None:
    """Both processes hold the same weights."""
    for name, parameter in model.named_parameters():
        both = [torch.empty_like(parameter) for _ in range(2)]
        dist.all_gather(both, parameter.detach().contiguous())
        assert torch.equal(*both), name


def single_query_under_checkpointing(folder: Path, base: str, world) -> None:
    """With one query vector the input projection is unused, for which DDP would wait for ever."""
    model = build(base)
    options = {"max_targets": 1, "max_steps": 3, "gradient_checkpointing": True}
    make_trainer(model, world, folder / "single", **options).train()
    in_step(model)


def resumed_under_checkpointing(folder: Path, base: str, world) -> None:
    """A run cut in two ends as the whole one does, and what was saved gives the vectors of the live model."""
    options = {"max_steps": 4, "gradient_checkpointing": True, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(build(base), world, folder / "whole", **options)
    whole.train()
    in_step(whole.model)
    resumed = make_trainer(build(base), world, folder / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-2"))
    in_step(resumed.model)
    whole.save_model()
    resumed.save_model()
    dist.barrier()
    saved = AMERModel.from_pretrained(folder / "whole", verify=True)
    assert saved.encode_query(QUESTIONS).equal(whole.model.encode_query(QUESTIONS))
    assert saved.encode_query(QUESTIONS).equal(resumed.model.encode_query(QUESTIONS))


def diverged(folder: Path, base: str, world) -> None:
    """One process meets a loss that is not finite; both say so, and none waits for the other."""
    trainer = make_trainer(build(base), world, folder / "diverged", max_steps=4)
    original = trainer.compute_loss

    def spoilt(*args, **kwargs):
        broken = dist.get_rank() == 1 and trainer.state.global_step == 1
        return original(*args, **kwargs) * (torch.nan if broken else 1)

    trainer.compute_loss = spoilt
    try:
        trainer.train()
    except ValueError as error:
        (folder / f"refused-{dist.get_rank()}.txt").write_text(str(error))


def sharded(folder: Path, base: str, world) -> None:
    """FSDP2 gives the model a class of its own, whose code would be saved in place of ours."""
    model = build(base)
    before = model.encode_query(QUESTIONS)
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.backbone.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert type(model).__name__ == "FSDPAMERModel"
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    model.save_pretrained(folder / "sharded", is_main_process=dist.get_rank() == 0, state_dict=state)
    assert type(model).__name__ == "FSDPAMERModel"
    dist.barrier()
    assert AMERModel.from_pretrained(folder / "sharded").encode_query(QUESTIONS).equal(before)


def main() -> None:
    folder, base = Path(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2  # some ways to launch run one process and say nothing
    log = folder / f"log-{dist.get_rank()}.txt"
    transformers_logging.get_logger().addHandler(logging.FileHandler(log))
    # Below 5.18 transformers asks torch to restore a checkpoint of the CPU to "cpu:0", which it does not know.
    torch.serialization.register_package(
        5, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
    )
    world = small_world(folder / f"world-{dist.get_rank()}")
    for part in (single_query_under_checkpointing, resumed_under_checkpointing, diverged, sharded):
        part(folder, base, world)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
