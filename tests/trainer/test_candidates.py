"""The candidates of several processes are those of one."""

from __future__ import annotations

import torch

from amer.trainer.candidates import gather_candidates

VECTORS = torch.arange(40, dtype=torch.float32)[:, None] * torch.ones(3)  # the vector of document i is (i, i, i)


def brought(ids):
    ids = torch.tensor(ids)
    return {"candidates": VECTORS[ids], "candidate_ids": ids}


def test_documents_count_once_and_targets_are_found_by_their_row_in_the_store():
    shared = gather_candidates(
        **brought([3, 5, 9, 20]),
        target_ids=torch.tensor([[9, 3], [20, -1]]),
        other_positives=torch.tensor([[0, 5], [1, 7], [1, 3]]),
    )
    assert shared["candidates"][:, 0].tolist() == [3, 5, 9, 20]
    assert shared["target_mask"].tolist() == [[True, True], [True, False]]
    assert shared["target_index"].tolist() == [[2, 0], [3, 0]]
    assert shared["masked_candidates"].tolist() == [[0, 1], [1, 0]]  # document 7 is nobody's candidate


def test_documents_of_other_processes_join_in_whatever_their_number():
    mine, theirs = brought([3, 5, 9]), brought([1, 3, 9, 12])
    rows = {"candidates": theirs["candidates"], "candidate_ids": theirs["candidate_ids"]}

    def gather(tensor):
        other = rows["candidates" if tensor.ndim == 2 else "candidate_ids"]
        padding = torch.full((len(other) - len(tensor), *tensor.shape[1:]), -1, dtype=tensor.dtype)
        return torch.cat([tensor, padding, other])

    shared = gather_candidates(
        **mine, target_ids=torch.tensor([[5, 9]]), other_positives=torch.tensor([[0, 12], [0, 2]]), gather=gather
    )
    assert shared["candidates"][:, 0].tolist() == [1, 3, 5, 9, 12]
    assert shared["target_index"].tolist() == [[2, 3]] and shared["masked_candidates"].tolist() == [[0, 4]]


def test_no_known_documents_leave_nothing_out():
    shared = gather_candidates(
        **brought([4]), target_ids=torch.tensor([[4]]), other_positives=torch.empty(0, 2).long()
    )
    assert shared["masked_candidates"].shape == (0, 2) and shared["target_index"].tolist() == [[0]]
