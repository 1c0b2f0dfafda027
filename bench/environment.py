"""What machine and which software the numbers belong to."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.results import Environment
from exporter.runtime import usable_cores

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "torch", "transformers", "peft")


def read_environment(threads: int) -> Environment:
    """Describe this machine; `threads` is what every backend is allowed to use."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return Environment(
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        usable_cores=usable_cores(),
        threads=threads,
        gpu=gpu_name(),
        versions=versions,
    )


def gpu_name() -> str | None:
    """Return the name of the CUDA device that PyTorch sees, None where there is none."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or os.uname().machine
