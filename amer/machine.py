"""The machine: devices and precisions of models, and the hardware's name for model cards."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("amer", "torch", "transformers", "peft", "accelerate", "sentence-transformers", "tokenizers", "numpy")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def chosen_device(device: torch.device | str | None = None) -> str:
    """Return the given device. Default: a GPU if there is one, else the CPU.

    Raises:
        ValueError: The device does not exist.
    """
    if not device:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError:
        raise ValueError(f"the device must be cpu, cuda or cuda:N, such as cuda:0; got {str(device)!r}") from None
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"the device is {str(device)!r}, but torch finds {torch.cuda.device_count()} GPUs: use cpu")
    return str(device)


def native_dtype(device: torch.device | str) -> str:
    """Return the name of the faster precision: bfloat16 if the device supports it natively, else float32.

    Other devices emulate bfloat16, which is slower than float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if kind == "cpu" and torch.backends.mkldnn.is_available() else {}
        native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bfloat16" if native else "float32"


def chosen_dtype(dtype: torch.dtype | str, device: torch.device | str) -> torch.dtype:
    """Return the given precision. "auto" is the faster one on the device (`native_dtype`).

    Raises:
        ValueError: The precision is not float32, bfloat16, float16 or auto.
    """
    name = native_dtype(device) if dtype == "auto" else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {dtype!r}")
    return DTYPES[name]


def hardware(device: torch.device | str, count: int = 1) -> dict[str, Any]:
    """Describe the hardware: `{"device", "count"}` for an accelerator, `{"device", "cores"}` for the CPU.

    Args:
        device: Device of the tensors.
        count: Number of such devices, one per process.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "count": count}
    if device.type != "cpu":
        return {"device": device.type, "count": count}
    has_affinity = hasattr(os, "sched_getaffinity")  # only on Linux: the cores that this process may use
    return {"device": _processor(), "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()}


def hardware_line(hardware: dict[str, Any]) -> str:
    """Describe the result of `hardware` in words: "2 x NVIDIA H200", "AMD EPYC 9V74, 2 cores"."""
    count = f"{hardware['count']} x " if hardware.get("count", 1) > 1 else ""
    cores = f", {hardware['cores']} cores" if "cores" in hardware else ""
    return f"{count}{hardware['device']}{cores}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that affect the vectors."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # for example this project, run from its folder
            continue
    return found


def _processor() -> str:
    """Return the CPU's name. Only Linux has it in a file."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
