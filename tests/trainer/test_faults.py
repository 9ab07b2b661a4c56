"""A process that dies or hangs ends the training of the other: with an error, in time, and with its checkpoint."""

from __future__ import annotations

import pytest

from modeling_amer import AMERModel
from tests.trainer.test_distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.kill]


@pytest.mark.parametrize(
    ("fault", "said"), [("dies", "Signal 9 (SIGKILL) received"), ("hangs", "Timed out waiting 10000ms")]
)
def test_the_other_process_ends_with_an_error_and_the_checkpoint_stays(llama, tmp_path, fault, said):
    done = run_processes(2, "faults.py", str(tmp_path), llama, fault, timeout=120)
    assert done.returncode != 0 and said in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert (tmp_path / "run" / "checkpoint-2" / "trainer_state.json").is_file()
    AMERModel.from_pretrained(tmp_path / "run" / "checkpoint-2", verify=True)
