"""Which precision a device computes natively."""

from __future__ import annotations

import pytest
import torch

from amer.machine import native_dtype


@pytest.mark.parametrize(
    ("able", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, "float32"),
        ({"architecture": "aarch64"}, "float32"),
    ],
)
def test_a_processor_without_bfloat16_computes_in_float32(able, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert native_dtype("cpu") == dtype
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert native_dtype("cpu") == "float32"


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_is_asked_without_emulation(native, dtype, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    assert native_dtype("cuda:1") == dtype


def test_other_devices_compute_in_float32():
    assert native_dtype("mps") == "float32"
