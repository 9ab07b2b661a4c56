"""What the benchmarks measure with: time by phases, peak memory, FLOPs, and the least work of a step."""

from __future__ import annotations

import pytest
import torch

from benchmarks import common
from benchmarks.common import Clock, count_flops, peak_memory, timed

MEGABYTE = 2**20 // 4  # float32 numbers


class Worker:
    """Works without taking time: it sets the clock forward."""

    now = 0.0

    def work(self, seconds: float) -> float:
        self.now += seconds
        return seconds


@pytest.fixture
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(common.time, "perf_counter", lambda: worker.now)
    return worker


def test_every_moment_belongs_to_the_innermost_phase(worker):
    clock = Clock()
    with clock.watch(worker, "work", lambda seconds: "long" if seconds > 3 else "short"), clock.phase("outer"):
        assert worker.work(5.0) == 5.0
        worker.work(1.0)
        assert clock.current == "outer"
        worker.now += 2.0
    worker.work(7.0)
    assert clock.seconds == {"long": 5.0, "short": 1.0, "outer": 2.0}
    assert clock.shares() == {"long": 5 / 8, "outer": 2 / 8, "short": 1 / 8}
    assert clock.current is None


def test_warm_up_runs_do_not_count(worker):
    durations = iter([100.0, 50.0, 1.0, 2.0, 3.0])
    assert timed(lambda: worker.work(next(durations)), repeats=3, warm_up=2) == [1.0, 2.0, 3.0]


def test_the_ceiling_is_the_rate_of_the_fastest_product(monkeypatch):
    monkeypatch.setattr(common, "timed", lambda function, repeats, warm_up: [2.0, 1.0])
    assert common.matmul_rate("cpu", torch.float32) == 2 * 2048**3


def test_peak_memory_counts_what_lives_at_the_same_time():
    def one_after_another() -> None:
        for _ in range(4):
            torch.ones(MEGABYTE)

    def together() -> None:
        [torch.ones(MEGABYTE) for _ in range(4)]

    assert [peak_memory(one_after_another), peak_memory(together)] == [2**20, 4 * 2**20]


def test_flops_of_the_backward_pass_are_counted():
    left, right = torch.randn(2, 10, 10, requires_grad=True)
    assert count_flops(lambda _: (left @ right).sum().backward()) == 3 * 2 * 10**3
